"""What a sweep adds to bare training: three macroarchitectures on the digits, by the recipe that sqz-sweep begins with.

    python benchmarks/sweep_overhead.py [--max_steps=1000] [--rounds=1]

Prints `ratio=`: the seconds of whole sweeps divided by the seconds that they spent in training. Required: at most 1.05.
The rest is the database, loading and measuring each net, and the report. The time of equal trainings varies by more
than that, so trainings without a sweep, in turn with the sweeps, tell only whether training is slower inside a sweep:
`inside_over_alone=`.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import tempfile
import time
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from absl import flags

from sqz_keras import command

REQUIRED = 1.05


def define_flags() -> None:
    flags.DEFINE_integer("max_steps", 1_000, "Updates of each training.", lower_bound=100)
    flags.DEFINE_integer("rounds", 1, "Each side runs that often.", lower_bound=1)


def main(argv) -> None:
    del argv
    from trainers.configs import load_config
    from trainers.search.config import SweepConfig
    from trainers.search.space import SPACES
    from trainers.search.study import sweep
    from trainers.training import loop

    args = flags.FLAGS
    train = dataclasses.replace(load_config("digits_family"), max_steps=args.max_steps)
    config = SweepConfig(SPACES["bypass"], train, sampler="grid")
    points = list(config.space.grid())
    taken = {"alone": 0.0, "sweep": 0.0, "inside": 0.0}
    train_and_evaluate = loop.train_and_evaluate

    def timed(side: str, function, *arguments) -> dict:
        start = time.perf_counter()
        result = function(*arguments)
        taken[side] += time.perf_counter() - start
        return result

    def inside(*arguments) -> dict:
        return timed("inside", train_and_evaluate, *arguments)

    with tempfile.TemporaryDirectory() as scratch:
        data_dir = f"{scratch}/data"
        train_and_evaluate(dataclasses.replace(train, max_steps=1, warmup_steps=0), f"{scratch}/warm", data_dir)
        for number in range(args.rounds):
            for side in ("sweep", "alone") if number % 2 == 0 else ("alone", "sweep"):
                folder = f"{scratch}/{side}{number}"
                if side == "sweep":
                    with mock.patch.object(loop, "train_and_evaluate", inside):
                        timed(side, sweep, config, folder, data_dir)
                    continue
                for index, point in enumerate(points):
                    timed(side, train_and_evaluate, config.trial_config(point), f"{folder}/{index}", data_dir)
    print(
        f"{args.rounds} x {len(points)} nets of {args.max_steps} updates: sweeps {taken['sweep']:.1f} s, of that "
        f"training {taken['inside']:.1f} s; the same trainings alone {taken['alone']:.1f} s"
    )
    print(f"inside_over_alone={taken['inside'] / taken['alone']:.3f}")
    print(f"ratio={taken['sweep'] / taken['inside']:.3f} (required: at most {REQUIRED})")


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
