"""Searches the SqueezeNet family for the nets that do best, by training them: the paper's sections 5 and 6 as a tool.

sqz-sweep --space=squeeze_ratio|pct_3x3|bypass|pool_after|full|FILE.json --workdir=DIR [--sampler=tpe] [--trials=20]
    [--objectives=top1,bytes] [--config=digits_family] [--max_steps=N] ...
sqz-sweep --space=squeeze_ratio --dry_run
    every point of a grid, and what is known of its net without training

The same command again goes on where a sweep stopped; the same command on another machine, or in another shell, with one
--storage for all (a SQLite file in --workdir by default), works on the same sweep. DIR then holds a folder a net,
trials.json and report.html. Every field of the training's config is a flag, as with sqz-train.
"""

from __future__ import annotations

import sys

from absl import flags

from sqz_keras import command
from sqz_keras.architecture.spec import ModelSpec
from trainers.config_flags import config_from_flags, define_config_flags, given_flags, input_from_flags


def define_flags() -> None:
    flags.DEFINE_string("space", None, "What varies: a name, or a JSON file that describes it.", required=True)
    flags.DEFINE_string("workdir", None, "Folder for what the sweep writes.")
    flags.DEFINE_string("sampler", "tpe", "grid, random, tpe, gp (needs torch), nsga2 or annealing.")
    flags.DEFINE_list("objectives", ["top1"], "Of top1, bytes, latency and compressed_bytes; several give a front.")
    flags.DEFINE_integer(
        "trials", 20, "After which it ends; a net drawn again counts, a grid trains all of its points."
    )
    flags.DEFINE_boolean(
        "prune", False, "End trainings below the median at the same step; for top1 alone, and no grid."
    )
    flags.DEFINE_integer("sampler_seed", 0, "Of the sampler's draws.", lower_bound=0, upper_bound=(1 << 32) - 1)
    flags.DEFINE_string("storage", "", "URL of a database that several workers share, as postgresql://HOST/NAME.")
    flags.DEFINE_string("data_dir", None, "TensorFlow Datasets' own folder; by default the one that it chooses.")
    flags.DEFINE_boolean("dry_run", False, "Print the points of the grid and their nets, and do nothing.")
    define_config_flags("digits_family")


def main(argv) -> int:
    del argv
    args = flags.FLAGS
    from trainers.search.space import find_space
    from trainers.search.study import SweepConfig, sweep

    space, train = find_space(args.space), config_from_flags(args)
    config = SweepConfig(
        space=space,
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
        from trainers.search.table import dry_run_lines

        # At the paper's input size and classes, unless a recipe was named.
        model = train.model if args["config"].present else input_from_flags(ModelSpec(), args)
        print("\n".join(dry_run_lines(space, model)))
        return 0
    if not args.workdir:
        raise ValueError("--workdir=DIR is needed, a folder for what the sweep writes; or --dry_run.")

    from trainers.search.table import best_lines
    from trainers.training.interruption import Interrupted
    from trainers.training.loop import open_source

    open_source(train, args.data_dir)  # a study keeps its recipe, so what that gets wrong is told before there is one
    try:
        records = sweep(config, args.workdir, args.data_dir)
    except (Interrupted, KeyboardInterrupt) as stopped:
        print(f"\nsqz-sweep: {str(stopped) or 'interrupted.'} What is finished is kept.", file=sys.stderr)
        return 0 if isinstance(stopped, Interrupted) and stopped.signal.name == "SIGTERM" else 130
    if not any(record["state"] == "complete" for record in records):
        print(f"sqz-sweep: no net could be trained to its end; see {args.workdir}/trials.json", file=sys.stderr)
        return 1
    print("\n".join(best_lines(config.objectives, records)))
    print(f"report: {args.workdir}/report.html")
    return 0


def run() -> None:
    command.run(main, define_flags, __doc__)


if __name__ == "__main__":
    run()
