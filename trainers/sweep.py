"""Searches the SqueezeNet family for the best networks, by training them: the paper's sections 5 and 6 as a tool.

sqz-sweep --space=squeeze_ratio|pct_3x3|bypass|pool_after|full|FILE.json --workdir=DIR [--sampler=tpe] [--trials=20]
    [--objectives=top1,bytes] [--config=digits_family] [--max_steps=N] ...
sqz-sweep --space=squeeze_ratio --dry_run
    every point of a grid, with what is known of its network without training

The same command resumes a sweep that was stopped. On another machine or in another shell, with the same --storage (a
SQLite file in --workdir by default), it works on the same sweep. DIR then holds a folder for each network, trials.json
and report.html. Every field of the training's config is a flag, as with sqz-train.
"""

from __future__ import annotations

from absl import flags

from sqz_keras import command
from sqz_keras.architecture.spec import ModelSpec
from trainers.config_flags import config_from_flags, define_config_flags, given_flags, input_from_flags


def define_flags() -> None:
    flags.DEFINE_string("space", None, "What varies: a name, or a JSON file that describes it.", required=True)
    flags.DEFINE_string("workdir", None, "Folder for what the sweep writes.")
    flags.DEFINE_string("sampler", "tpe", "grid, random, tpe, gp (needs torch), nsga2 or annealing.")
    flags.DEFINE_list(
        "objectives", ["top1"], "One or more of top1, bytes, latency, compressed_bytes; several give a Pareto front."
    )
    flags.DEFINE_integer(
        "trials",
        20,
        "Number of trials; a network that is drawn twice counts twice. Not for a grid, which trains all its points.",
    )
    flags.DEFINE_boolean(
        "prune", False, "End training runs below the median at the same step; for top1 only, not for a grid."
    )
    flags.DEFINE_integer(
        "sampler_seed",
        0,
        "Seed of the sampler in a new sweep; one that resumes, and any further worker, draws other points.",
        lower_bound=0,
        upper_bound=(1 << 32) - 1,
    )
    flags.DEFINE_string("storage", "", "URL of a database that several workers share, such as postgresql://HOST/NAME.")
    flags.DEFINE_string("data_dir", None, "TensorFlow Datasets' own folder; by default the one that it chooses.")
    flags.DEFINE_boolean("dry_run", False, "Print the points of the grid and their networks, and train nothing.")
    define_config_flags("digits_family")


def main(argv) -> int:
    del argv
    args = flags.FLAGS
    from trainers.search.config import SweepConfig
    from trainers.search.run import run_sweep
    from trainers.search.space import find_space
    from trainers.search.table import dry_run_lines

    if args.sampler == "grid" and args["trials"].present:
        raise ValueError(
            "--sampler=grid trains all points of the space: leave out --trials, or choose another sampler."
        )
    train = config_from_flags(args)
    config = SweepConfig(
        space=find_space(args.space),
        train=train,
        train_flags=given_flags(args),
        sampler=args.sampler,
        objectives=tuple(args.objectives),
        trials=args.trials,
        seed=args.sampler_seed,
        prune=args.prune,
        storage=args.storage,
    )
    if args.dry_run:
        # At the paper's input size and classes, unless a recipe was named.
        model = train.model if args["config"].present else input_from_flags(ModelSpec(), args)
        print("\n".join(dry_run_lines(config.space, model)))
        return 0
    return run_sweep(config, args.workdir, args.data_dir)


def run() -> None:
    command.run(main, define_flags, __doc__, extras=("sweep",))


if __name__ == "__main__":
    run()
