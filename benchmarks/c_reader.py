"""Milliseconds in which the decoder in C reads a `.sqz` file, compared with the Python reader. Needs a C compiler.

    python benchmarks/c_reader.py [--model=imagenet] [--rounds=31]

Encodes the model in the profile `max`, builds `c/sqz.c` with -O2, and lets both read the file, one after the other.
Prints medians: `c_milliseconds=`, and how many times as long Python takes. Required: at most 30 ms for a v1.0 of about
400,000 bytes: `--model=small.sqz`, written by sqz-compress --method=quantize --target_bytes=400000.
"""

from __future__ import annotations

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from absl import flags

from sqz_keras import command

C_MILLISECONDS = 30
SOURCE = pathlib.Path(__file__).parents[1] / "c" / "sqz.c"


def define_flags() -> None:
    command.define_model_flags()
    flags.DEFINE_integer("rounds", 31, "Each reader runs that often.", lower_bound=1)


def main(argv) -> None:
    del argv
    from sqz_keras import codec
    from sqz_keras.weights import sqz
    from sqz_keras.weights.resolve import resolve_model

    args = flags.FLAGS
    spec, arrays = resolve_model(args.model, version=args.version, bypass=args.bypass)
    data = codec.encode(arrays, sqz.header(spec, arrays, {}), profile="max")
    python_seconds = []
    for _ in range(args.rounds):
        start = time.perf_counter()
        codec.decode(data)
        python_seconds.append(time.perf_counter() - start)
    with tempfile.TemporaryDirectory() as scratch:
        program, file = pathlib.Path(scratch, "sqz"), pathlib.Path(scratch, "model.sqz")
        file.write_bytes(data)
        build = [
            os.environ.get("CC", "cc"),
            "-std=c99",
            "-O2",
            "-ffp-contract=off",
            SOURCE,
            "-o",
            program,
        ]
        subprocess.run(build, check=True)
        output = subprocess.run([program, f"--time={args.rounds}", file], check=True, capture_output=True, text=True)
    c_milliseconds, python_milliseconds = float(output.stdout), 1000 * statistics.median(python_seconds)
    print(f"{len(data):,} bytes, profile max")
    print(
        f"python_milliseconds={python_milliseconds:.1f}, {python_milliseconds / c_milliseconds:.1f} times as long as C"
    )
    print(f"c_milliseconds={c_milliseconds:.1f} (required: at most {C_MILLISECONDS})")


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
