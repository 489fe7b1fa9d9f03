"""Compresses a model to a .sqz file, and reports on it.

sqz-compress --output=FILE.sqz [--model=imagenet] [--profile=max|paper]
    lossless: the same weights, to the bit
sqz-compress --output=FILE.sqz --bits=6
    weights shared by k-means, without any image
sqz-compress --output=FILE.sqz --target_bytes=400000 --calibration_dir=DIR
    a file of that size, from unlabelled images
sqz-compress --output=FILE.sqz --densities=table1 --bits=6 --image_dir=DIR
    pruned, clustered and fine-tuned on labelled images; with --teacher towards the uncompressed net's answers, for
    which --calibration_dir=DIR, unlabelled ones, will do
sqz-compress --output=FILE.sqz --base=OLD.sqz
    what is to be sent to those who have OLD.sqz; with --model=FILE.sqz --base=OLD.sqz they make the whole file of it

FILE.json and FILE.html hold the report. --evaluation_dir=DIR adds how often the result answers as the model did, and,
where the names of the images tell their labels, how often both are right; labelled images to fine-tune on have a
test or validation split, which does so too.
"""

from __future__ import annotations

from absl import flags

from sqz_keras import command


def define_flags() -> None:
    command.define_model_flags()
    flags.DEFINE_string("output", None, "The .sqz file to write; an older one is replaced.", required=True)
    flags.DEFINE_enum("profile", "max", ["paper", "max"], "Coding: Deep Compression's, or the smallest.")
    flags.DEFINE_string("base", None, "A .sqz file that the receiver has: only the difference is written.")
    flags.DEFINE_string("bits", "", "Of a layer's codes: 6, size=290000, or 6,conv1=8.")
    flags.DEFINE_string("densities", "", "table1, rounding, sensitivity=0.33, 0.4, LAYER=0.3, or several with commas.")
    flags.DEFINE_integer("target_bytes", 0, "Size of the file, without labels.", lower_bound=0)
    flags.DEFINE_string("calibration_dir", None, "Folder of unlabelled images, at any depth.")
    flags.DEFINE_integer("calibration_images", 100, "At most so many of them for --target_bytes.", lower_bound=1)
    flags.DEFINE_boolean("teacher", False, "Fine-tune towards the uncompressed net's answers, not to labels.")
    flags.DEFINE_string("image_dir", None, "Folder of labelled images to fine-tune on, a folder a class.")
    flags.DEFINE_string("dataset", None, "Dataset of TensorFlow Datasets to fine-tune on.")
    flags.DEFINE_string("data_dir", None, "TensorFlow Datasets' own folder; by default the one that it chooses.")
    flags.DEFINE_string("evaluation_dir", None, "Folder of images that judge the result.")
    flags.DEFINE_string("workdir", None, "Folder from which fine-tuning goes on after a kill.")
    flags.DEFINE_integer("steps", 500, "Updates of each stage of fine-tuning.", lower_bound=1)
    flags.DEFINE_integer("batch_size", 32, "Images an update.", lower_bound=1)
    flags.DEFINE_float("learning_rate", 0.0, "Of the fine-tuning; 0 for each stage's own.", lower_bound=0.0)
    flags.DEFINE_integer("seed", 0, "Of the order of the images.", lower_bound=0)


def main(argv) -> None:
    del argv
    import dataclasses

    from trainers.compression.config import CompressionConfig

    names = [field.name for field in dataclasses.fields(CompressionConfig)]
    config = CompressionConfig(**{name: getattr(flags.FLAGS, name) for name in names})

    from trainers.compression.run import compress

    results = compress(config)
    print(f"{config.output}: {results['bytes']:,} bytes, {results['compression_ratio']:.1f} times less than float32")
    if "after" in results:
        low, high = results["after"]["agreement_interval"]
        print(f"{results['after']['num_images']} images, 95% interval of agreement {low:.3f} to {high:.3f}")
        if "top1_accuracy" in results["after"]:
            print(f"top1_accuracy before: {results['before']['top1_accuracy']:.3f}")
            print(f"top1_accuracy={results['after']['top1_accuracy']:.3f}")
        print(f"agreement={results['after']['agreement']:.3f}")
    print(f"bytes={results['bytes']}")


def run() -> None:
    command.run(main, define_flags, __doc__)


if __name__ == "__main__":
    run()
