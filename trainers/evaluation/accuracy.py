"""Accuracy of a model on labelled images."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Sequence

import keras
import numpy as np

from sqz_keras.architecture.spec import ModelSpec
from trainers.data.image_reader import read_batches
from trainers.evaluation.metrics import Predictions, accuracy_fields, count_in_top
from trainers.progress import progress_bar, say


def evaluate_images(
    model: keras.Model,
    spec: ModelSpec,
    images: Sequence[tuple[pathlib.Path, int]],
    batch_size: int,
) -> tuple[dict, Predictions]:
    """Accuracies of a model on images, with 95% intervals; images that cannot be read are named on stderr.

    Args:
        model: The model, as `build` and `load` return it.
        spec: The model's spec.
        images: (path, class index) of each image, as `find_labelled_images` returns them.
        batch_size: Images per batch.

    Returns:
        `top1_accuracy`, `top1_interval`, `top5_accuracy`, `top5_interval`, `num_images`, `num_failed`,
        `images_per_second` (reading included), `num_params` and `model_spec`. With fewer than 5 classes,
        top-5 counts all of them. And the predictions, whose positions are those in `images`.

    Raises:
        ValueError: No image could be read.
    """
    start = time.monotonic()
    top1 = top5 = total = failed = 0
    parts = []
    with progress_bar(len(images), "image") as bar:
        for batch in read_batches(images, spec, batch_size):
            for error in batch.errors:
                say(f"sqz-evaluate: skipped: {error}")
            if batch.inputs:
                scores, labels = model.predict_on_batch(np.stack(batch.inputs)), np.array(batch.labels)
                top1 += count_in_top(scores, labels, 1)
                top5 += count_in_top(scores, labels, 5)
                predicted = scores.argmax(axis=1)
                probability = np.take_along_axis(scores, predicted[:, None], axis=1)[:, 0]
                parts.append((np.array(batch.positions), labels, predicted, probability))
            total, failed = total + len(batch.inputs), failed + len(batch.errors)
            bar.set_postfix_str(f"top-1 {top1 / max(total, 1):.1%}", refresh=False)
            bar.update(len(batch.inputs) + len(batch.errors))
    if not total:
        raise ValueError(f"None of the {failed} images could be read.")
    results = (
        accuracy_fields("top1", top1, total)
        | accuracy_fields("top5", top5, total)
        | {
            "num_images": total,
            "num_failed": failed,
            "images_per_second": round(total / (time.monotonic() - start), 1),
            "num_params": model.count_params(),
            "model_spec": spec.to_json(),
        }
    )
    return results, Predictions(*map(np.concatenate, zip(*parts, strict=True)))
