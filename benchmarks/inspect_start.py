"""Seconds from the shell until `sqz-inspect` prints the first line, and until it ends.

    python benchmarks/inspect_start.py [--model=imagenet] [--rounds=9]

Prints medians for both profiles, and for `python -c "import numpy"`; the file is first written to a temporary folder.
Then prints `first_line_seconds=` of the slower profile; required: at most 0.3. Ends with an error if the command
imports Keras.
"""

from __future__ import annotations

import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from absl import flags

from sqz_keras import command

ROOT = pathlib.Path(__file__).parents[1]
REQUIRED_SECONDS = 0.3
IMPORTS = """
import sys
from sqz_keras.cli import inspect
sys.argv = ["sqz-inspect", sys.argv[1]]
try:
    inspect.run()
except SystemExit:
    sys.exit("keras" in sys.modules)
"""


def define_flags() -> None:
    command.define_model_flags()
    flags.DEFINE_integer("rounds", 9, "Each side runs that often.", lower_bound=1)


def seconds(*arguments: str | pathlib.Path) -> tuple[float, float]:
    """Seconds until Python prints a line, and until it ends."""
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, cwd=ROOT) as process:
        process.stdout.readline()
        first = time.perf_counter() - start
        process.stdout.read()
    if process.returncode:
        raise ValueError(f"{arguments} ended with status {process.returncode}.")
    return first, time.perf_counter() - start


def main(argv) -> None:
    del argv
    from sqz_keras import codec
    from sqz_keras.weights import sqz
    from sqz_keras.weights.resolve import resolve_model

    args = flags.FLAGS
    spec, arrays = resolve_model(args.model, version=args.version, bypass=args.bypass)
    with tempfile.TemporaryDirectory() as folder:
        sides = {"import numpy": ("-c", "import numpy")}
        for profile in ("paper", "max"):
            path = pathlib.Path(folder, f"{profile}.sqz")
            path.write_bytes(codec.encode(arrays, sqz.header(spec, arrays, {}), profile=profile))
            sides[profile] = ("-m", "sqz_keras.cli.inspect", path)
        subprocess.run([sys.executable, "-c", IMPORTS, path], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        times = {name: [] for name in sides}
        for number in range(args.rounds + 1):
            for name, arguments in sides.items():
                taken = seconds(*arguments)
                if number:  # the first round fills the disk cache and writes the bytecode
                    times[name].append(taken)
    medians = {
        name: [statistics.median(column) for column in zip(*taken, strict=True)] for name, taken in times.items()
    }
    for name, (first, whole) in medians.items():
        print(f"{name}: {first:.2f} s to the first line, {whole:.2f} s in all")
    print(f"first_line_seconds={max(medians[name][0] for name in ('paper', 'max')):.3f} (required: {REQUIRED_SECONDS})")


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
