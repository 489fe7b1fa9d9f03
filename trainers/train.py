"""Trains a SqueezeNet on a dataset of TensorFlow Datasets and evaluates it once on the test split.

sqz-train --config=digits --workdir=DIR [--data_dir=DIR] [--max_steps=N] [--seed=N]

DIR then holds model.keras, model.weights.h5, model.spec.json (what the weights alone do not say) and evaluation.json.
"""

from __future__ import annotations

import dataclasses
import sys

from absl import flags

from sqz_keras import command


def define_flags() -> None:
    flags.DEFINE_string("config", None, "Recipe: the name of a module in trainers/configs.", required=True)
    flags.DEFINE_string("workdir", None, "Folder for what training writes.", required=True)
    flags.DEFINE_string("data_dir", None, "TensorFlow Datasets' own folder; by default the one that it chooses.")
    flags.DEFINE_integer("max_steps", None, "Updates, instead of the recipe's.")
    flags.DEFINE_integer("seed", None, "Of weights, order and dropout, instead of the recipe's.")


def main(argv) -> int:
    del argv
    from trainers.config import load_config

    args = flags.FLAGS
    overrides = {name: getattr(args, name) for name in ("max_steps", "seed") if getattr(args, name) is not None}
    config = dataclasses.replace(load_config(args.config), **overrides)

    try:
        from trainers.loop import train_and_evaluate

        results = train_and_evaluate(config, args.workdir, args.data_dir)
    except ModuleNotFoundError as error:
        raise ValueError(f"Training needs {error.name}; install it with: pip install 'sqz-keras[train]'") from error
    except KeyboardInterrupt:
        print(f"\nsqz-train: interrupted; nothing was written to {args.workdir}.", file=sys.stderr)
        return 130
    low, high = results["top1_interval"]
    print(f"model: {args.workdir} ({results['num_params']:,} parameters)")
    print(f"{results['split']}: {results['num_images']} images, 95% interval of top-1 {low:.3f} to {high:.3f}")
    print(f"top1_accuracy={results['top1_accuracy']:.3f}")
    return 0


def run() -> None:
    command.run(main, define_flags, __doc__)


if __name__ == "__main__":
    run()
