"""The samplers of sqz-sweep at an equal budget, on one recorded table of trained points.

    python experiments/samplers.py --trials=SWEEP/trials.json [--samplers=random,tpe] [--budget=20] [--repeats=100]

The table comes from a grid that sqz-sweep trained. Each sampler draws `--budget` points of that grid, and gets the
recorded accuracies instead of training; this is repeated `--repeats` times, each with another seed. Prints, for each
sampler, the mean of the best validation top-1 that it found with the 95% interval of the mean, and `ratio=`: its mean
distance from the best point divided by that of random sampling. Below 1 is better than random. Numbers are drawn by
rank, so that samplers know which are neighbours. The sampler gp needs PyTorch.
"""

from __future__ import annotations

import json
import math
import pathlib
import statistics
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from absl import flags

from sqz_keras import command

SAMPLERS = ("random", "tpe", "nsga2", "annealing", "gp")


def define_flags() -> None:
    flags.DEFINE_string("trials", None, "trials.json of a grid.", required=True)
    flags.DEFINE_integer("budget", 20, "Points that each draws.", lower_bound=1)
    flags.DEFINE_integer("repeats", 100, "How often, with other seeds.", lower_bound=2)
    flags.DEFINE_list("samplers", list(SAMPLERS), f"Of {', '.join(SAMPLERS)}; random is always there.")


def main(argv) -> None:
    del argv
    import optuna
    from optuna.distributions import CategoricalDistribution, IntDistribution

    from trainers.search.samplers import make_sampler

    args = flags.FLAGS
    unknown = sorted(set(args.samplers) - set(SAMPLERS))
    if unknown:
        raise ValueError(f"--samplers: {unknown[0]!r} is none of {', '.join(SAMPLERS)}.")
    for name in args.samplers:  # before the work: without PyTorch, a sampler that needs it is refused
        make_sampler(name, 0, args.budget, 1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    records = json.loads(pathlib.Path(args.trials).read_text("utf-8"))["trials"]
    table = {tuple(sorted(record["point"].items())): record["top1"] for record in records if "top1" in record}
    axes = {name: sorted({dict(point)[name] for point in table}) for name, _ in next(iter(table))}
    if math.prod(map(len, axes.values())) != len(table):
        raise ValueError(f"--trials={args.trials} has {len(table)} points, no whole grid; finish the sweep first.")
    space = {
        name: CategoricalDistribution(tuple(values))
        if isinstance(values[0], str)
        else IntDistribution(0, len(values) - 1)
        for name, values in axes.items()
    }

    def accuracy(params):
        point = {name: value if isinstance(value, str) else axes[name][value] for name, value in params.items()}
        return table[tuple(sorted(point.items()))]

    goal, regrets = max(table.values()), {}
    for name in dict.fromkeys(["random", *args.samplers]):
        best_values = []
        for seed in range(args.repeats):
            study = optuna.create_study(direction="maximize", sampler=make_sampler(name, seed, args.budget, 1))
            for _ in range(args.budget):
                trial = study.ask(space)
                study.tell(trial, accuracy(trial.params))
            best_values.append(study.best_value)
        mean, spread = statistics.mean(best_values), 1.96 * statistics.stdev(best_values) / args.repeats**0.5
        regrets[name] = goal - mean
        ratio = regrets[name] / regrets["random"] if regrets["random"] else float("nan")
        summary = f"{name:<10} best of {args.budget}: {mean:.4f} +- {spread:.4f}"
        print(f"{summary} (best of all {len(table)}: {goal:.4f})  ratio={ratio:.2f}")


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
