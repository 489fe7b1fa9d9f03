"""Seconds from the start of `sqz-serve` to its first answer, with the version's files in the disk's cache.

    python benchmarks/server_start.py --image_dir=imagenet_sample [--model=imagenet] [--rounds=5]

Prints the median and the slowest; required: a median of at most 8. `bare_python=` is the start of Python with
TensorFlow alone, which no embedded server can go below.
"""

import pathlib
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from absl import flags

from benchmarks.serving_server import define_server_flags, read_images, serving
from export.client.client import Client
from sqz_keras import command

REQUIRED_SECONDS = 8


def define_flags() -> None:
    define_server_flags()
    flags.DEFINE_integer("rounds", 5, "How often the server starts.", lower_bound=1)


def main(argv) -> None:
    del argv
    args = flags.FLAGS
    image = read_images(args.image_dir)[0]
    bare, answered = [], []
    with serving(args.model) as (server, _):
        for _ in range(args.rounds):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", "import tensorflow"], check=True, stderr=subprocess.DEVNULL)
            bare.append(time.perf_counter() - start)
            server.stop()
            start = time.perf_counter()
            server.start()
            with Client(server.target) as client:  # a client of the earlier server would wait before retrying
                client.predict(image)
            answered.append(time.perf_counter() - start)
    print(f"bare_python={statistics.median(bare):.2f}")
    print(f"slowest_seconds={max(answered):.2f}")
    print(f"first_answer_seconds={statistics.median(answered):.2f} (required: at most {REQUIRED_SECONDS})")


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
