"""Seconds from the start of `sqz-predict --image=...` to its answer, by a warm server on this machine.

    python benchmarks/client_start.py --image_dir=imagenet_sample [--model=imagenet] [--rounds=20]

Prints the median and the slowest; required: a median of at most 0.6. `bare_python=` is the start of Python with numpy
and grpc alone, which no client can go below.
"""

import pathlib
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from absl import flags

from benchmarks.serving_server import define_server_flags, jpeg_files, serving
from sqz_keras import command

REQUIRED_SECONDS = 0.6
ROOT = pathlib.Path(__file__).parents[1]


def seconds(*arguments: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def define_flags() -> None:
    define_server_flags()
    flags.DEFINE_integer("rounds", 20, "Each side runs that often.", lower_bound=1)


def main(argv) -> None:
    del argv
    args = flags.FLAGS
    image = jpeg_files(args.image_dir)[0]
    with serving(args.model) as (server, _):
        predict = ["-m", "export.predict", f"--server={server.target}", f"--image={image.resolve()}"]
        bare = ["-c", "import grpc, numpy"]
        seconds(*predict)  # fills the disk cache and writes the bytecode
        times = {"predict": [], "bare": []}
        for _ in range(args.rounds):
            times["predict"].append(seconds(*predict))
            times["bare"].append(seconds(*bare))
    print(f"bare_python={statistics.median(times['bare']):.3f}")
    print(f"slowest_seconds={max(times['predict']):.3f}")
    print(f"answer_seconds={statistics.median(times['predict']):.3f} (required: at most {REQUIRED_SECONDS})")


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
