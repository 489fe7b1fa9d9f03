"""What a sweep adds to bare training: the digits, one point, in turn with `train_and_evaluate` in one process.

    python benchmarks/sweep_overhead.py [--max_steps=300] [--rounds=3]

Prints `ratio=`: the median seconds of `sqz-sweep` with one point over those of training alone with the same config. The
bar is 1.05. A sweep also opens its database, measures the net and writes a report.
"""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from absl import flags

from sqz_keras import command

BAR = 1.05


def define_flags() -> None:
    flags.DEFINE_integer("max_steps", 300, "Updates of each training.", lower_bound=1)
    flags.DEFINE_integer("rounds", 3, "Each side runs that often.", lower_bound=1)


def main(argv) -> None:
    del argv
    from trainers.config import load_config
    from trainers.loop import train_and_evaluate
    from trainers.sweep_space import SPACES
    from trainers.sweep_study import SweepConfig, sweep

    args = flags.FLAGS
    space = dataclasses.replace(SPACES["bypass"], dimensions={"bypass": _one("none")})
    train = dataclasses.replace(load_config("digits"), max_steps=args.max_steps)
    config = SweepConfig(space, train, sampler="grid")
    taken = {"bare": [], "sweep": []}
    with tempfile.TemporaryDirectory() as scratch:
        train_and_evaluate(dataclasses.replace(train, max_steps=1), f"{scratch}/warm", f"{scratch}/data")
        for number in range(args.rounds):
            for name in taken:
                folder, start = f"{scratch}/{name}{number}", time.perf_counter()
                if name == "bare":
                    train_and_evaluate(config.trial_config({"bypass": "none"}), folder, f"{scratch}/data")
                else:
                    sweep(config, folder, f"{scratch}/data")
                taken[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    print(f"{args.max_steps} updates: bare {medians['bare']:.1f} s, as a sweep {medians['sweep']:.1f} s")
    print(f"ratio={medians['sweep'] / medians['bare']:.3f} (bar: at most {BAR})")


def _one(choice: str):
    from optuna.distributions import CategoricalDistribution

    return CategoricalDistribution((choice,))


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
