"""Seconds that `from sqz_keras import SqueezeNet` takes in addition to `import keras`.

The difference between the medians of the two, interleaved in one run:

    python benchmarks/import_time.py

Prints `import_overhead_seconds=`; required: at most 0.15.
"""

import pathlib
import statistics
import subprocess
import sys
import time

ROUNDS = 5
REQUIRED_SECONDS = 0.15


STATEMENTS = {"keras": "import keras", "sqz_keras": "from sqz_keras import SqueezeNet"}


def seconds(statement: str) -> float:
    start = time.perf_counter()
    root = pathlib.Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", statement], check=True, cwd=root, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    seconds(STATEMENTS["sqz_keras"])  # fills the disk cache and writes the bytecode
    times = {module: [] for module in STATEMENTS}
    for _ in range(ROUNDS):
        for module, taken in times.items():
            taken.append(seconds(STATEMENTS[module]))
    medians = {module: statistics.median(taken) for module, taken in times.items()}
    overhead = medians["sqz_keras"] - medians["keras"]
    print(f"median of {ROUNDS}: keras {medians['keras']:.2f} s, sqz_keras {medians['sqz_keras']:.2f} s")
    print(f"ratio={medians['sqz_keras'] / medians['keras']:.3f}")
    print(f"import_overhead_seconds={overhead:.3f} (required: at most {REQUIRED_SECONDS})")


if __name__ == "__main__":
    main()
