"""Top-1 and top-5 accuracy of a model on labelled images.

sqz-evaluate --image_dir=DIR [--model=imagenet] [--version=1.1] [--labels=FILE.txt] [--report=FILE.json]
             [--report_html=FILE.html]

DIR holds one folder of images per class, named after its label (for ImageNet its wnid), or images named
<label>_<anything>.jpg. An image that cannot be read is named and left out; the exit status is then 1.
"""

from __future__ import annotations

import os
import sys

from absl import flags

from sqz_keras import command


def define_flags() -> None:
    command.define_model_flags()
    flags.DEFINE_string("image_dir", None, "Folder of labelled images.", required=True)
    flags.DEFINE_string("labels", None, "Text file with one class name per line, if the model has none.")
    flags.DEFINE_integer("batch_size", 32, "Images per batch.", lower_bound=1)
    flags.DEFINE_string("report", None, "JSON file for the results.")
    flags.DEFINE_string(
        "report_html",
        None,
        "HTML file: calibration, confusions, accuracy by class, the worst mistakes with class maps.",
    )


def main(argv) -> int:
    del argv
    from sqz_keras.backend import use_default_settings
    from sqz_keras.extras import needs
    from sqz_keras.files import write_json
    from sqz_keras.images.preprocessing import check_takes_rgb
    from sqz_keras.models.squeezenet import build
    from sqz_keras.weights.description import read_labels, with_labels
    from sqz_keras.weights.resolve import resolve_model
    from trainers.data.image_reader import class_labels, find_labelled_images
    from trainers.evaluation.accuracy import evaluate_images

    args = flags.FLAGS
    outputs = {flag: path for flag, path in (("report", args.report), ("report_html", args.report_html)) if path}
    _check_outputs(outputs, args.model, args.labels)
    if args.report_html is not None:
        with needs("report"):
            import trainers.reports.evaluation  # noqa: F401 - a missing extra is reported before the work
    spec, arrays = resolve_model(args.model, version=args.version, bypass=args.bypass)
    check_takes_rgb(spec)
    if args.labels is not None:
        spec = with_labels(spec, read_labels(args.labels))
    images = find_labelled_images(args.image_dir, class_labels(spec))
    for flag, path in outputs.items():
        if os.path.exists(path) and any(os.path.samefile(path, image) for image, _ in images):
            raise ValueError(f"--{flag}={path} would replace an image of --image_dir: give another name.")
    results = {"model": args.model, "image_dir": args.image_dir}
    use_default_settings()
    model = build(spec, arrays)
    measured, predictions = evaluate_images(model, spec, images, args.batch_size)
    results |= measured
    if args.report is not None:
        write_json(args.report, results)
    if args.report_html is not None:
        _write_report(args.report_html, model, spec, images, predictions, results)
    print(f"{results['num_images']} images, {results['images_per_second']} a second", end="")
    print(f"; {results['num_failed']} could not be read" if results["num_failed"] else "")
    for name in ("top1", "top5"):
        print("95% interval of {}: {:.3f} to {:.3f}".format(name, *results[f"{name}_interval"]))
    for name in ("top1_accuracy", "top5_accuracy"):
        print(f"{name}={results[name]:.3f}")
    sys.stdout.flush()
    return 1 if results["num_failed"] else 0


def _check_outputs(outputs, model, labels) -> None:
    """Refuses reports that cannot be written, or that would replace each other or an input."""
    from sqz_keras.files import check_is_no_input, check_writable
    from trainers.training.config import check_is_not_of_run

    if len({os.path.realpath(path) for path in outputs.values()}) < len(outputs):
        raise ValueError(f"--report and --report_html are two files; both are {outputs['report']}.")
    for flag, path in outputs.items():
        check_writable(path)
        check_is_no_input(flag, path, {"--model": model, "--labels": labels})
        check_is_not_of_run(flag, path, model)


def _write_report(path, model, spec, images, predictions, results) -> None:
    """Writes the HTML report, with the class maps of the worst mistakes."""
    from sqz_keras.explain import ClassMaps, overlay
    from sqz_keras.images.files import read_image
    from sqz_keras.images.preprocessing import prepare_image
    from trainers.reports.answers import MOST_MISTAKES, Mistake
    from trainers.reports.evaluation import write_evaluation_report

    class_map, mistakes = ClassMaps(model), []
    for position, truth, predicted, probability in predictions.surest_mistakes(MOST_MISTAKES):
        image = read_image(images[position][0])
        seen = overlay(image, class_map(prepare_image(image, spec), predicted), spec)
        mistakes.append(Mistake(image, truth, predicted, probability, seen))
    title = f"{results['top1_accuracy']:.1%} top-1 on {results['image_dir']}"
    labels = spec.class_names()
    write_evaluation_report(
        path, title=title, labels=labels, predictions=predictions, mistakes=mistakes, results=results
    )


def run() -> None:
    command.run(main, define_flags, __doc__)


if __name__ == "__main__":
    run()
