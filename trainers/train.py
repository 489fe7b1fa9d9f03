"""Trains a SqueezeNet and evaluates it once on the test split.

sqz-train --image_dir=IMAGES --workdir=DIR
sqz-train --config=digits --workdir=DIR [--data_dir=DIR] [--max_steps=N] [--seed=N] ...

The first form chooses a config for a folder of your own images, one folder per class, and says what it chose and why.

DIR then holds model.keras, model.weights.h5, model.spec.json (what the weights alone do not say), evaluation.json,
metrics.csv, report.html and README.md, a model card. The same command resumes a run that was stopped. Every field of
the config is a flag; without it the config's own value is used.
"""

from __future__ import annotations

import sys

from absl import flags

from sqz_keras import command, memory
from trainers.config_flags import config_from_flags, define_config_flags, define_net_flags


def define_flags() -> None:
    flags.DEFINE_string("workdir", None, "Folder for what training writes.", required=True)
    flags.DEFINE_string("data_dir", None, "TensorFlow Datasets' own folder; by default the one that it chooses.")
    flags.DEFINE_boolean("dry_run", False, "Print what a run would do, and write nothing.")
    define_config_flags()
    define_net_flags()


def main(argv) -> int:
    del argv
    args = flags.FLAGS
    config = config_from_flags(args)
    if args.dry_run:
        from trainers.training.dry_run import describe

        print(describe(config, args.data_dir))
        return 0

    from trainers.training.interruption import Interrupted
    from trainers.training.loop import train_and_evaluate

    memory.keep_blocks()
    try:
        results = train_and_evaluate(config, args.workdir, args.data_dir)
    except Interrupted as stopped:
        print(f"\nsqz-train: {stopped}", file=sys.stderr)
        return stopped.exit_status
    low, high = results["top1_interval"]
    print(f"model: {args.workdir} ({results['num_params']:,} parameters)")
    print(f"{results['split']}: {results['num_images']} images, 95% interval of top-1 {low:.3f} to {high:.3f}")
    print(f"top1_accuracy={results['top1_accuracy']:.3f}")
    return 0


def run() -> None:
    command.run(main, define_flags, __doc__, extras=("train",))


if __name__ == "__main__":
    run()
