"""Top-1 and top-5 accuracy of a model on labelled images.

sqz-evaluate --image_dir=DIR [--model=imagenet] [--version=1.1] [--labels=FILE.txt] [--report=FILE.json]
             [--report_html=FILE.html]

DIR holds one folder of images per class, named after its label (for ImageNet its wnid), or images named
<label>_<anything>.jpg. An image that cannot be read is named and left out; the exit status is then 1.
"""

from __future__ import annotations

import sys

from absl import flags

from sqz_keras import command
from trainers.evaluation.config import EvaluationConfig


def define_flags() -> None:
    command.define_field_flags(EvaluationConfig)


def main(argv) -> int:
    del argv
    config = command.config_of(EvaluationConfig, flags.FLAGS)

    from trainers.evaluation.run import evaluate

    results = evaluate(config)
    print(f"{results['num_images']} images, {results['images_per_second']} a second", end="")
    print(f"; {results['num_failed']} could not be read" if results["num_failed"] else "")
    for name in ("top1", "top5"):
        print("95% interval of {}: {:.3f} to {:.3f}".format(name, *results[f"{name}_interval"]))
    for name in ("top1_accuracy", "top5_accuracy"):
        print(f"{name}={results[name]:.3f}")
    sys.stdout.flush()
    return 1 if results["num_failed"] else 0


def run() -> None:
    command.run(main, define_flags, __doc__)


if __name__ == "__main__":
    run()
