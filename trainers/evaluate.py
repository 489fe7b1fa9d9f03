"""Top-1 and top-5 accuracy of a model on labelled images.

sqz-evaluate --image_dir=DIR [--model=imagenet] [--version=1.1] [--labels=FILE.txt] [--report=FILE.json]

DIR holds a folder of images a class, named by its label (for ImageNet its wnid), or images named
<label>_<anything>.jpg. An image that cannot be read is named and left out; the exit status is then 1.
"""

from __future__ import annotations

import dataclasses
import sys

from absl import flags

from sqz_keras import command


def define_flags() -> None:
    command.define_model_flags()
    flags.DEFINE_string("image_dir", None, "Folder of labelled images.", required=True)
    flags.DEFINE_string("labels", None, "Text file with the name of a class on each line, where the model has none.")
    flags.DEFINE_integer("batch_size", 32, "Images at a time.", lower_bound=1)
    flags.DEFINE_string("report", None, "JSON file for the results.")


def main(argv) -> int:
    del argv
    from sqz_keras.files import check_writable, write_json
    from sqz_keras.weights.description import read_labels
    from sqz_keras.weights.resolve import resolve_model
    from trainers.data.image_reader import class_labels, find_labelled_images
    from trainers.evaluation.accuracy import evaluate_images

    args = flags.FLAGS
    if args.report is not None:
        check_writable(args.report)
    spec, arrays = resolve_model(args.model, version=args.version, bypass=args.bypass)
    if args.labels is not None:
        spec = dataclasses.replace(spec, labels=read_labels(args.labels))
    images = find_labelled_images(args.image_dir, class_labels(spec))
    results = {"model": args.model, "image_dir": args.image_dir}
    results |= evaluate_images(spec, arrays, images, args.batch_size)
    if args.report is not None:
        write_json(args.report, results)
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
