"""Compresses a model to a .sqz file, and reports on it.

sqz-compress --output=FILE.sqz [--model=imagenet] [--profile=max|paper]
    lossless: the same weights, to the bit
sqz-compress --method=kmeans --bits=6 --output=FILE.sqz
    weights shared by k-means, without images
sqz-compress --method=quantize --target_bytes=400000 --calibration_dir=DIR --output=FILE.sqz
    a file of that size, from unlabelled images
sqz-compress --method=tune --target_bytes=243861 --calibration_dir=DIR --workdir=STAGES --output=FILE.sqz
    the same, with codes that are trained on thousands of unlabelled images, for hours
sqz-compress --method=finetune --densities=table1 --bits=6 --image_dir=DIR --output=FILE.sqz
    pruned, clustered and fine-tuned on labelled images; with --teacher, towards the uncompressed model's answers, which
    needs only unlabelled images: --calibration_dir=DIR
sqz-compress --base=OLD.sqz --output=DELTA.sqz
    with any method: a delta, for someone who has OLD.sqz
sqz-compress --model=DELTA.sqz --apply_to=OLD.sqz --output=FILE.sqz
    the whole file again, from the delta

FILE.json and FILE.html hold the report; the second needs the extra `report`. --evaluation_dir=DIR adds how often the
result agrees with the model, some of the images whose answer changed, and, where the images are labelled, how often
both are right. --method=finetune does so with the test split of its images, or with the validation split where that one
is missing or has no labels.
"""

from __future__ import annotations

from absl import flags

from sqz_keras import command, memory
from trainers.compression.config import METHODS


def define_flags() -> None:
    flags.DEFINE_enum("method", "lossless", list(METHODS), "How the model is made smaller.")
    command.define_field_flags(*METHODS.values())


def main(argv) -> None:
    del argv
    config = command.config_of_method(METHODS, flags.FLAGS.method, flags.FLAGS)

    from trainers.compression.run import compress

    memory.keep_blocks()
    results = compress(config)
    is_delta = "base" in results
    size = f"a delta on {config.base}" if is_delta else f"{results['compression_ratio']:.1f} times less than float32"
    print(f"{config.output}: {results['bytes']:,} bytes, {size}")
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
