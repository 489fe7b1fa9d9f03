"""Accuracies and their confidence intervals."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

_Z = 1.959964  # two-sided 95% quantile of the normal distribution
_BINS = 10  # of a calibration


class LossNotFiniteError(ValueError):
    """A loss is infinite or NaN: the net cannot be trained with this config, or an image is damaged."""


@dataclasses.dataclass(frozen=True)
class Predictions:
    """A model's predictions on a split: arrays (N,), with one entry for each image that could be read.

    Args:
        positions: Positions of the images in the split, int.
        truth: True class indices, int.
        predicted: Predicted class indices, int.
        probability: Probability of the predicted class, float.
    """

    positions: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray

    @property
    def correct(self) -> int:
        """Number of correct predictions."""
        return int((self.truth == self.predicted).sum())

    def confusion(self, classes: int) -> np.ndarray:
        """How many images of the row's class were predicted as the column's class: int (classes, classes)."""
        counts = np.bincount(self.truth * classes + self.predicted, minlength=classes * classes)
        return counts.reshape(classes, classes)

    def surest_mistakes(self, most: int) -> list[tuple[int, int, int, float]]:
        """(position, true class, predicted class, probability) of wrong predictions, the most probable first."""
        wrong = np.flatnonzero(self.truth != self.predicted)
        wrong = wrong[np.argsort(-self.probability[wrong], kind="stable")][:most]
        columns = (self.positions, self.truth, self.predicted, self.probability)
        return list(zip(*(column[wrong].tolist() for column in columns), strict=True))


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """The 95% interval of a share of `correct` among `total` > 0, as fractions (low, high).

    Wilson's score interval (E. B. Wilson, JASA 22, 1927): with p = correct / total, n = total and z = 1.96,
    (p + z^2 / 2n +- z * sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n).
    """
    share, squared = correct / total, _Z * _Z / total
    centre = share + squared / 2
    spread = math.sqrt(squared * share * (1 - share) + squared * squared / 4)
    return max(0.0, (centre - spread) / (1 + squared)), min(1.0, (centre + spread) / (1 + squared))


def count_in_top(scores: np.ndarray, labels: np.ndarray, k: int) -> int:
    """How many rows of `scores` (N, classes) have their label (N,) among the k highest; ties go to the lower index."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return int((best == np.asarray(labels)[:, None]).any(axis=1).sum())


def accuracy_fields(name: str, correct: int, total: int) -> dict:
    """`<name>_accuracy` and its `<name>_interval`, fractions rounded to 6 digits, as reports hold them."""
    interval = [round(bound, 6) for bound in wilson_interval(correct, total)]
    return {f"{name}_accuracy": round(correct / total, 6), f"{name}_interval": interval}


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How often predictions of about the same probability are correct: arrays, with one entry for each bin.

    Args:
        counts: Number of predictions, int.
        correct: Number of correct ones, int.
        probability: Mean probability of the predicted class, float; 0 in an empty bin.
    """

    counts: np.ndarray
    correct: np.ndarray
    probability: np.ndarray

    @property
    def expected_error(self) -> float:
        """The expected calibration error, in [0, 1].

        The mean over the predictions of |accuracy - mean probability| of their bin (Guo et al., arXiv 1706.04599,
        formula 3).
        """
        return float(np.abs(self.correct - self.counts * self.probability).sum() / self.counts.sum())


def calibration(predictions: Predictions) -> Calibration:
    """The calibration of at least one prediction, in ten bins from 0 to 1; a bound belongs to the bin below it."""
    place = np.clip(np.ceil(predictions.probability * _BINS).astype(int) - 1, 0, _BINS - 1)
    counts = np.bincount(place, minlength=_BINS)
    correct = np.bincount(place[predictions.truth == predictions.predicted], minlength=_BINS)
    sums = np.bincount(place, predictions.probability, minlength=_BINS)
    return Calibration(counts, correct, sums / np.maximum(counts, 1))
