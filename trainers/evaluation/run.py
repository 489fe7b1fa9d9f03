"""What sqz-evaluate does: it evaluates a model on labelled images, and writes the reports."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import keras

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.backend import use_default_settings
from sqz_keras.extras import needs
from sqz_keras.files import write_json
from sqz_keras.images.preprocessing import check_takes_rgb
from sqz_keras.models.squeezenet import build
from sqz_keras.weights.labels import read_labels, with_labels
from sqz_keras.weights.resolve import resolve_model
from trainers.data.image_reader import class_labels, find_labelled_images
from trainers.evaluation.accuracy import evaluate_images
from trainers.evaluation.config import EvaluationConfig
from trainers.evaluation.metrics import Predictions


def evaluate(config: EvaluationConfig) -> dict[str, Any]:
    """Evaluates the model, and writes the reports that the config names.

    Returns:
        The results, as the JSON report holds them: those of `evaluate_images`, `model` and `image_dir`.

    Raises:
        ValueError: The model, the labels or the images are not what they should be, or no image can be read.
        OSError: A file cannot be read or written.
        MissingExtraError: The extra `report` is needed for the HTML report.
    """
    if config.report_html:
        with needs("report"):
            import trainers.reports.evaluation  # noqa: F401 - a missing extra is reported before the work
    spec, arrays = resolve_model(config.model, version=config.version, bypass=config.bypass)
    check_takes_rgb(spec)
    if config.labels is not None:
        spec = with_labels(spec, read_labels(config.labels))
    images = find_labelled_images(config.image_dir, class_labels(spec))
    _check_reports_are_no_images(config, images)
    use_default_settings()
    model = build(spec, arrays)
    measured, predictions = evaluate_images(model, spec, images, config.batch_size)
    results = {"model": config.model, "image_dir": config.image_dir} | measured
    if config.report:
        write_json(config.report, results)
    if config.report_html:
        _write_html(config.report_html, model, spec, images, predictions, results)
    return results


def _check_reports_are_no_images(config: EvaluationConfig, images: Sequence[tuple[pathlib.Path, int]]) -> None:
    for flag, path in config.reports().items():
        if os.path.exists(path) and any(os.path.samefile(path, image) for image, _ in images):
            raise ValueError(f"--{flag}={path} would replace an image of --image_dir: give another name.")


def _write_html(
    path: str,
    model: keras.Model,
    spec: ModelSpec,
    images: Sequence[tuple[pathlib.Path, int]],
    predictions: Predictions,
    results: dict[str, Any],
) -> None:
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
