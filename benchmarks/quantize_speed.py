"""Seconds and memory that quantising without labels takes, as a user runs it.

    python benchmarks/quantize_speed.py --image_dir=DIR [--model=imagenet] [--target_bytes=400000]

DIR holds images; 100 of them calibrate. Runs sqz-compress in a process of its own, and prints what is required on
2 cores with nothing else running.
"""

from __future__ import annotations

import pathlib
import resource
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from absl import flags

from sqz_keras import command

MOST_SECONDS, MOST_MEGABYTES = 60, 2500


def define_flags() -> None:
    command.define_model_flags()
    flags.DEFINE_string("image_dir", None, "Folder of images, at any depth.", required=True)
    flags.DEFINE_integer("target_bytes", 400_000, "Size of the file.")


def main(argv) -> None:
    del argv
    args = flags.FLAGS
    with tempfile.TemporaryDirectory() as scratch:
        output = pathlib.Path(scratch, "small.sqz")
        options = [f"--model={args.model}", "--method=quantize", f"--target_bytes={args.target_bytes}"]
        options += [f"--calibration_dir={args.image_dir}", f"--output={output}"]
        options += [f"--{name}={getattr(args, name)}" for name in ("version", "bypass") if getattr(args, name)]
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "trainers.compress", *options], check=True)
        seconds, size = time.perf_counter() - start, output.stat().st_size
    unit = 1 if sys.platform == "darwin" else 1024  # bytes in a unit of ru_maxrss
    megabytes = unit * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(
        f"{size:,} bytes in {seconds:.1f} s, {megabytes:,.0f} MB at most (required: {MOST_SECONDS} s, "
        f"{MOST_MEGABYTES:,} MB)"
    )


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
