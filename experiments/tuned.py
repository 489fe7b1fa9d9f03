"""Top-1 loss of nets that are trained and then compressed to a tenth of their size with tfmot, over seeds.

    python experiments/tuned.py --workdir=DIR --image_dir=IMAGENETTE [--seeds=0,1,2]
    python experiments/tuned.py --workdir=DIR --dataset=digits --share=0.94 [--data_dir=TFDS_DIR]

For each seed the recipe is trained (`transfer` on images, else the recipe named after the dataset), and the net is then
pruned, clustered and fine-tuned as in sqz-compress, with the uncompressed net as the teacher on its training images.
Both nets are evaluated on the recipe's test split, or on its validation split if it has no test split. DIR/seed-N/
holds the net (`net/`, by sqz-train; an existing net is used), the stages and the file; a run that was killed resumes
from there.

Prints one line per seed, then the mean loss in top-1 with its 95% interval over the seeds (Student's), and what is
required: at most a tenth of the float32 bytes, and with images at most 0.5 points.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import statistics
import sys
from collections.abc import Sequence

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from absl import flags

from sqz_keras import command

RATIO = 10.0
MOST_POINTS = 0.5  # of top-1, on images
# 97.5% quantiles of Student's t, from one degree of freedom on.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def define_flags() -> None:
    flags.DEFINE_string("workdir", None, "Folder of what is made.", required=True)
    flags.DEFINE_string("image_dir", None, "Folder with `train/` and `val/`, a folder a class in each.")
    flags.DEFINE_string("dataset", None, "Dataset of TensorFlow Datasets, and name of the recipe.")
    flags.DEFINE_string("data_dir", None, "TensorFlow Datasets' own folder; by default the one that it chooses.")
    flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds.")
    flags.DEFINE_float("share", 0.985, "Share of the bytes that are allowed: fine-tuning changes the size.", 0.1, 1.0)
    flags.DEFINE_integer("steps", 150, "Updates of each of both stages.", lower_bound=1)
    flags.DEFINE_float("learning_rate", 0.0, "Of both stages; 0 for what sqz-compress takes.", lower_bound=0.0)
    flags.DEFINE_integer("batch_size", 32, "Images an update.")
    flags.DEFINE_boolean("teacher", True, "Fine-tune towards the uncompressed net's answers, not to labels.")


def main(argv) -> None:
    del argv
    args = flags.FLAGS
    if bool(args.image_dir) == bool(args.dataset):
        raise ValueError("Give --image_dir or --dataset, one of them.")
    rows = [one_seed(int(seed), args) for seed in args.seeds]
    losses = [100 * (row["before"] - row["after"]) for row in rows]
    mean, half = mean_and_half_interval(losses)
    interval = f" ({mean - half:.2f} to {mean + half:.2f})" if half is not None else ""
    print(f"mean loss in top-1: {mean:.2f} points{interval}")
    required = [("size", min(row["ratio"] for row in rows) >= RATIO)]
    if args.image_dir:
        required.append(("loss", mean <= MOST_POINTS))
    print("required: " + ", ".join(f"{name} {'yes' if holds else 'no'}" for name, holds in required))


def mean_and_half_interval(losses: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and half of its 95% interval if there are 2 to 10 values."""
    mean = sum(losses) / len(losses)
    if not 2 <= len(losses) <= len(STUDENT) + 1:
        return mean, None
    return mean, STUDENT[len(losses) - 2] * statistics.stdev(losses) / math.sqrt(len(losses))


def one_seed(seed: int, args) -> dict:
    """Trains and compresses what is not done yet; returns `bytes`, `ratio`, and top-1 `before` and `after`."""
    folder = pathlib.Path(args.workdir, f"seed-{seed}")
    net, output = folder / "net", folder / "tuned.sqz"
    if not (net / "evaluation.json").exists():
        from trainers.configs import load_config
        from trainers.training.loop import train_and_evaluate

        config = load_config("transfer" if args.image_dir else args.dataset)
        images = {"image_dir": args.image_dir} if args.image_dir else {}
        train_and_evaluate(dataclasses.replace(config, seed=seed, **images), net, args.data_dir)
    from sqz_keras.weights.resolve import resolve_model
    from trainers.compression.config import FinetuneConfig
    from trainers.compression.run import compress

    config = FinetuneConfig(
        model=str(net),
        output=str(output),
        densities="rounding",
        bits=f"size={args.share * 4 * resolve_model(net)[0].count_params() / RATIO:.0f}",
        teacher=args.teacher,
        image_dir=args.image_dir,
        dataset=args.dataset,
        data_dir=args.data_dir,
        workdir=str(folder / "stages"),
        steps=args.steps,
        learning_rate=args.learning_rate,
        batch_size=args.batch_size,
        seed=seed,
    )
    results = compress(config)
    low, high = results["after"]["agreement_interval"]
    row = {"bytes": results["bytes"], "ratio": results["compression_ratio"]}
    row |= {name: results[name]["top1_accuracy"] for name in ("before", "after")}
    print(
        f"seed {seed}: {row['bytes']:,} bytes, {row['ratio']:.1f} times less; top-1 {row['before']:.1%} -> "
        f"{row['after']:.1%} of {results['after']['num_images']}; agreement {results['after']['agreement']:.1%} "
        f"({low:.1%} to {high:.1%})",
        flush=True,
    )
    return row


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
