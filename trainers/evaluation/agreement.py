"""How often a compressed model gives the original's answer, and how often each of them is right."""

from __future__ import annotations

import dataclasses
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
MOST_CHANGED = 12


@dataclasses.dataclass(frozen=True)
class ChangedAnswer:
    """An image to which two models give different answers.

    Attributes:
        inputs: Network inputs of the image, float32 (S, S, C).
        before: Class index that the first model predicts.
        after: Class index that the other model predicts.
        probability_before: Probability of `before` in the first model, in [0, 1].
        probability_after: Probability of `after` in the other model, in [0, 1].
    """

    inputs: np.ndarray
    before: int
    after: int
    probability_before: float
    probability_after: float


class ChangedAnswers:
    """Collects images to which two models give different answers; keeps those that the first model was surest of.

    Attributes:
        kept: At most `MOST_CHANGED` answers, the highest `probability_before` first.
    """

    def __init__(self):
        self.kept: list[ChangedAnswer] = []

    def add(self, images: np.ndarray, before: np.ndarray, after: np.ndarray) -> None:
        """Adds a batch: network inputs (B, S, S, C), and both models' probabilities (B, classes)."""
        first, other = before.argmax(axis=1), after.argmax(axis=1)
        changed = [
            ChangedAnswer(
                np.array(images[place]),  # a copy: a view would keep the whole batch
                int(first[place]),
                int(other[place]),
                float(before[place, first[place]]),
                float(after[place, other[place]]),
            )
            for place in np.flatnonzero(first != other)
        ]
        self.kept = sorted([*self.kept, *changed], key=lambda answer: -answer.probability_before)[:MOST_CHANGED]


def find_evaluation_images(folder: str, spec: ModelSpec) -> list[tuple[pathlib.Path, int | None]]:
    """The images of a folder, with their class indices if the names give them for all images, else with None.

    Raises:
        ValueError: It is not a folder, or has no images.
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


def compare_models(
    spec: ModelSpec,
    models: Sequence[dict[str, np.ndarray]],
    batches: Iterable[Batch],
    changed: ChangedAnswers | None = None,
) -> list[dict]:
    """Each model's `agreement_fields` relative to the first model's answers, on the same images.

    Args:
        spec: The spec that all models share.
        models: The weights of each model, by name.
        batches: Batches of (network inputs, float32 (B, S, S, C); class indices (B,), or None if unknown).
        changed: Collects the images to which the last model gives a different answer than the first.

    Raises:
        ValueError: There are no images.
    """
    built = [build(spec, arrays) for arrays in models]
    answers, labels = [], []
    for images, truth in batches:
        probabilities = [model.predict_on_batch(images) for model in built]
        answers.append([rows.argmax(axis=1) for rows in probabilities])
        labels.append(truth)
        if changed is not None:
            changed.add(images, probabilities[0], probabilities[-1])
    if not answers:
        raise ValueError("None of the images for the evaluation could be read.")
    first, *_ = by_model = np.concatenate(answers, axis=1)
    truth = None if any(batch is None for batch in labels) else np.concatenate(labels)
    return [agreement_fields(first, predicted, truth) for predicted in by_model]


def agreement_fields(reference: np.ndarray, answers: np.ndarray, labels: np.ndarray | None) -> dict:
    """The share of images whose top-1 class is the reference's, and the share whose top-1 class is right.

    Args:
        reference: Class indices (N,) that the uncompressed model predicts.
        answers: Class indices (N,) that the evaluated model predicts.
        labels: True class indices (N,), or None if unknown.

    Returns:
        `num_images`, `agreement`, `agreement_interval`, and with labels `top1_accuracy`, `top1_interval`; the
        intervals are Wilson's 95% intervals.
    """
    same = accuracy_fields("agreement", int((answers == reference).sum()), len(answers))
    fields = {"num_images": len(answers), "agreement": same["agreement_accuracy"]}
    fields["agreement_interval"] = same["agreement_interval"]
    if labels is not None:
        fields |= accuracy_fields("top1", int((answers == labels).sum()), len(answers))
    return fields
