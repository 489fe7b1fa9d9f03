"""Seconds and memory of sqz-receive, from the start of the process to its end, against a process that imports numpy.

    python benchmarks/receiver.py [--model=imagenet] [--rounds=9]

Receives the model as a whole file of each profile, and as a delta with another bias in conv10, and writes a LiteRT and
an ONNX file. Prints the median `seconds=` (required: at most 1) and the highest `megabytes_above_numpy=` of resident
memory (required: at most 100). Memory is measured on Linux only.
"""

from __future__ import annotations

import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from absl import flags

from sqz_keras import command

ROOT = pathlib.Path(__file__).parents[1]
REQUIRED_SECONDS, REQUIRED_MEGABYTES = 1.0, 100
_RECEIVE = "from sqz_keras.cli import receive; receive.run()"
_PRINT_PEAK = "import atexit; atexit.register(lambda: print(open('/proc/self/status').read()));"


def define_flags() -> None:
    command.define_model_flags()
    flags.DEFINE_integer("rounds", 9, "Each process runs that often.", lower_bound=1)


def main(argv) -> None:
    del argv
    from sqz_keras.weights import sqz
    from sqz_keras.weights.resolve import resolve_model

    args = flags.FLAGS
    spec, arrays = resolve_model(args.model, version=args.version, bypass=args.bypass)
    changed = arrays | {"conv10/bias": arrays["conv10/bias"] * 1.25}
    with tempfile.TemporaryDirectory() as folder:
        whole = {profile: sqz.encode(spec, arrays, profile=profile) for profile in ("paper", "max")}
        files = whole | {"delta": sqz.encode(spec, changed, base=whole["max"])}
        for name, data in files.items():
            pathlib.Path(folder, f"{name}.sqz").write_bytes(data)
        _, numpy_peak = median_run("import numpy", [], folder, args.rounds)
        print(f"import numpy: {numpy_peak:.0f} MB")
        base = {"delta": ["--base=max.sqz"]}
        for name in files:
            for suffix in ("tflite", "onnx"):
                argv = [f"{name}.sqz", f"--output=model.{suffix}", *base.get(name, [])]
                seconds, peak = median_run(_RECEIVE, argv, folder, args.rounds)
                print(
                    f"{name} to .{suffix}: seconds={seconds:.2f} (required: at most {REQUIRED_SECONDS}) "
                    f"megabytes_above_numpy={peak - numpy_peak:.0f} (required: at most {REQUIRED_MEGABYTES})"
                )


def median_run(code: str, arguments: list[str], folder: str, rounds: int) -> tuple[float, float]:
    """Median seconds of a Python process, and the highest resident memory of all rounds, in MB (10**6 bytes).

    As it ends, each process prints the peak that Linux has recorded for it. `wait4` would give this process's own peak
    if that is higher.
    """
    seconds, peaks = [], []
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for _ in range(rounds):
        start = time.perf_counter()
        command_line = [sys.executable, "-c", _PRINT_PEAK + code, *arguments]
        done = subprocess.run(command_line, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - start)
        peaks.append(int(re.search(r"VmHWM:\s+(\d+) kB", done.stdout)[1]) * 1024 / 1e6)
    return statistics.median(seconds), max(peaks)


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
