"""How often a compressed model answers as the one that it was made of, and how often both are right."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.images.files import find_images
from sqz_keras.models.squeezenet import build
from trainers.data.image_reader import class_labels, find_labelled_images, read_batches
from trainers.evaluation.metrics import accuracy_fields
from trainers.progress import progress_bar, say

Batch = tuple[np.ndarray, np.ndarray | None]


def find_evaluation_images(folder: str, spec: ModelSpec) -> list[tuple[pathlib.Path, int | None]]:
    """The images of a folder, with their class indices where its names tell them for all, else with None.

    Raises:
        ValueError: not a folder, or no images.
    """
    try:
        return find_labelled_images(folder, class_labels(spec))
    except ValueError as error:
        images = find_images(folder)
        say(f"These images have no labels, so only the agreement is measured: {error}")
        return [(image, None) for image in images]


def image_batches(
    images: Sequence[tuple[pathlib.Path, int | None]], spec: ModelSpec, batch_size: int = 32
) -> Iterator[Batch]:
    """Batches for `compare_models`; images that cannot be read are named on stderr and skipped."""
    with progress_bar(len(images), "image") as bar:
        for batch in read_batches(images, spec, batch_size):
            for error in batch.errors:
                say(f"Skipped: {error}")
            if batch.inputs:
                yield np.stack(batch.inputs), None if None in batch.labels else np.array(batch.labels)
            bar.update(len(batch.inputs) + len(batch.errors))


def compare_models(spec: ModelSpec, models: Sequence[dict[str, np.ndarray]], batches: Iterable[Batch]) -> list[dict]:
    """Each model's `agreement_fields` beside the first one's answers, on the same images.

    Args:
        spec: of all models.
        models: the weights of each, by name.
        batches: of (network inputs, float32 (B, S, S, C); class indices (B,), or None where they are unknown).

    Raises:
        ValueError: there are no images.
    """
    built = [build(spec, arrays) for arrays in models]
    answers, labels = [], []
    for images, truth in batches:
        answers.append([model.predict_on_batch(images).argmax(axis=1) for model in built])
        labels.append(truth)
    if not answers:
        raise ValueError("None of the images for the evaluation could be read.")
    first, *_ = by_model = np.concatenate(answers, axis=1)
    truth = None if any(batch is None for batch in labels) else np.concatenate(labels)
    return [agreement_fields(first, predicted, truth) for predicted in by_model]


def agreement_fields(reference: np.ndarray, answers: np.ndarray, labels: np.ndarray | None) -> dict:
    """The share of images whose top-1 is the reference's, and the share whose top-1 is right.

    Args:
        reference: class indices (N,) that the uncompressed model names.
        answers: likewise, of the model that is judged.
        labels: the truth, or None where it is unknown.

    Returns:
        `num_images`, `agreement`, `agreement_interval`, and with labels `top1_accuracy`, `top1_interval`; the
        intervals are 95%, Wilson's.
    """
    same = accuracy_fields("agreement", int((answers == reference).sum()), len(answers))
    fields = {"num_images": len(answers), "agreement": same["agreement_accuracy"]}
    fields["agreement_interval"] = same["agreement_interval"]
    if labels is not None:
        fields |= accuracy_fields("top1", int((answers == labels).sum()), len(answers))
    return fields
