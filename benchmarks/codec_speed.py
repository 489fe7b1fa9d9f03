"""Seconds to read a `.sqz` file of either profile, compared with reading the same weights from a deflated .npz.

    python benchmarks/codec_speed.py [--model=imagenet] [--rounds=9]

All run in turn in one process. Prints the median `decode_seconds=` and its `ratio=` to the .npz for each profile, and
the seconds that lossless encoding takes. Required: at most 0.25 s to decode and 5 s to encode, on two cores.
"""

from __future__ import annotations

import io
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np
from absl import flags

from sqz_keras import command

DECODE_SECONDS, ENCODE_SECONDS = 0.25, 5.0


def define_flags() -> None:
    command.define_model_flags()
    flags.DEFINE_integer("rounds", 9, "Each side runs that often.", lower_bound=1)


def main(argv) -> None:
    del argv
    from sqz_keras import codec
    from sqz_keras.weights import sqz
    from sqz_keras.weights.resolve import resolve_model

    args = flags.FLAGS
    spec, arrays = resolve_model(args.model, version=args.version, bypass=args.bypass)
    archive = io.BytesIO()
    np.savez_compressed(archive, **arrays)
    header, files, encoding = sqz.header(spec, arrays, {}), {}, {}
    for profile in ("paper", "max"):
        start = time.perf_counter()
        files[profile] = codec.encode(arrays, header, profile=profile)
        encoding[profile] = time.perf_counter() - start

    def load():
        with np.load(io.BytesIO(archive.getvalue())) as loaded:
            return {name: loaded[name] for name in loaded.files}

    sides = {"npz": load}
    for profile, data in files.items():
        sides[profile] = lambda data=data: codec.decode(data)
    seconds = {name: [] for name in sides}
    for number in range(args.rounds + 1):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    print(f"npz: {len(archive.getvalue()):,} bytes, {medians['npz']:.3f} s")
    for profile, data in files.items():
        print(f"{profile}: {len(data):,} bytes")
        print(f"{profile}: encode_seconds={encoding[profile]:.2f} (required: at most {ENCODE_SECONDS:g})")
        print(f"{profile}: ratio={medians[profile] / medians['npz']:.2f}")
        print(f"{profile}: decode_seconds={medians[profile]:.3f} (required: at most {DECODE_SECONDS})")


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
