"""Top-1 and top-5 accuracy of a model on labelled photographs.

sqz-evaluate --image_dir=DIR [--model=imagenet] [--version=1.1] [--report=FILE.json]

DIR holds a folder of photographs a class, named by its label (for ImageNet its wnid), or photographs named
<label>_<anything>.jpg. A photograph that cannot be read is named and left out; the exit status is then 1.
"""

from __future__ import annotations

import sys

from absl import flags

from sqz_keras import command


def define_flags() -> None:
    command.define_model_flags()
    flags.DEFINE_string("image_dir", None, "Folder of labelled photographs.", required=True)
    flags.DEFINE_integer("batch_size", 32, "Photographs at a time.", lower_bound=1)
    flags.DEFINE_string("report", None, "JSON file for the results.")


def main(argv) -> int:
    del argv
    from sqz_keras.files import check_writable
    from sqz_keras.weights.resolve import resolve_model
    from trainers.data.image_reader import class_labels, find_photographs
    from trainers.evaluation.accuracy import evaluate_photographs
    from trainers.report import write_json

    args = flags.FLAGS
    if args.report is not None:
        check_writable(args.report)
    spec, arrays = resolve_model(args.model, version=args.version, bypass=args.bypass)
    photographs = find_photographs(args.image_dir, class_labels(spec))
    results = {"model": args.model, "image_dir": args.image_dir}
    results |= evaluate_photographs(spec, arrays, photographs, args.batch_size)
    if args.report is not None:
        write_json(args.report, results)
    print(f"{results['num_images']} photographs, {results['images_per_second']} a second", end="")
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
