"""How long a sweep's report takes to open in Chromium, from asking for it to its last chart.

    python benchmarks/report_speed.py [--trials=1000] [--rounds=5]

The trials are made up, in the space `full`, with two objectives. Prints the median seconds, without the browser's
start, and their `ratio=` to a report of ten trials. Required: at most 3 s for 1,000 trials on two cores.
"""

from __future__ import annotations

import contextlib
import pathlib
import random
import shutil
import statistics
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from absl import flags

from sqz_keras import command

REQUIRED_SECONDS = 3.0
FEW = 10
DRAWN = "document.querySelectorAll('.chart svg, .chart canvas').length === document.querySelectorAll('.chart').length"


def define_flags() -> None:
    flags.DEFINE_integer("trials", 1000, "In the report, more than ten.", lower_bound=FEW + 1)
    flags.DEFINE_integer("rounds", 5, "How often each report is opened.", lower_bound=1)


def main(argv) -> None:
    del argv
    from tests.browser import Browser

    args = flags.FLAGS
    program = shutil.which("chromium")
    if program is None:
        raise ValueError("chromium must be on the PATH.")
    taken = {args.trials: [], FEW: []}
    with tempfile.TemporaryDirectory() as scratch:
        for count in taken:
            write_report(pathlib.Path(scratch, f"{count}.html"), count)
        with contextlib.closing(Browser(program, f"{scratch}/profile")) as browser:
            for _ in range(args.rounds):
                for count, seconds in taken.items():
                    start = time.perf_counter()
                    browser.open(pathlib.Path(scratch, f"{count}.html").as_uri()).wait(DRAWN)
                    seconds.append(time.perf_counter() - start)
    many, few = (statistics.median(seconds) for seconds in taken.values())
    print(f"{args.trials} trials: {many:.2f} s, {FEW} trials: {few:.2f} s, ratio={many / few:.1f}")
    print(f"required: at most {REQUIRED_SECONDS:g} s")


def write_report(path: pathlib.Path, count: int) -> None:
    """Writes the report of `count` trials at random points. Their nets are described, not trained."""
    import optuna

    from sqz_keras.architecture.spec import ModelSpec
    from trainers.reports.sweep import write_sweep_report
    from trainers.search.point import describe_net
    from trainers.search.space import SPACES, point_flags

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    draw, records = random.Random(0), []
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    while len(records) < count:
        point = study.ask(dict(SPACES["full"].dimensions)).params
        try:
            spec = SPACES["full"].spec(ModelSpec(), point)
        except ValueError:  # no such net
            continue
        net = describe_net(spec)
        records.append(
            {"number": len(records), "state": "complete", "point": point, "command": f"sqz-train {point_flags(spec)}"}
            | {"top1": draw.uniform(0.5, 1), "test_top1": draw.uniform(0.5, 1), "train_seconds": draw.uniform(9, 99)}
            | net
            | {"compressed_bytes": net["parameters"] // 2, "latency": draw.uniform(0.001, 0.1)}
        )
    importances = {name: 1 / len(point) for name in point}
    write_sweep_report(path, "full", ("top1", "compressed_bytes"), records, importances)


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
