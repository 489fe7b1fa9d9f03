"""Forecasts what share of a model's answers stays the same at a given coarseness of its grids."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_COMPENSATED = 0.58  # the whole net's divergence, as a share of that of layers rounded alone
_TYPICAL = 0.1  # nats; the divergence for which noise is simulated
_MOST_NOISE = 1000.0  # standard deviations of a logit; changes even answers that are certain
_DRAWS = 8  # of noise for each image


class Forecast(NamedTuple):
    """How divergence and agreement follow from the coarseness of the grids.

    Args:
        divergence: KL(before || after) at a coarseness of 1, in nats; it grows with the coarseness squared.
        changed: Share of changed answers, divided by the square root of the divergence.
    """

    divergence: float
    changed: float

    def agreement(self, coarseness: float) -> float:
        """The share of answers that stay the same."""
        return max(0.0, 1 - self.changed * coarseness * float(np.sqrt(self.divergence)))

    def coarseness(self, agreement: float) -> float:
        """The coarseness at which this share of the answers stays the same."""
        return (1 - agreement) / (self.changed * float(np.sqrt(self.divergence)))


def forecast(divergence_alone: float, probabilities: np.ndarray) -> Forecast:
    """The forecast for a model.

    Args:
        divergence_alone: Divergence of a net whose layers were rounded by themselves, at a coarseness of 1, on images
            to which they were not fitted.
        probabilities: The model's answers (N, classes) before rounding.
    """
    return Forecast(_COMPENSATED * divergence_alone, changed_answers(probabilities))


def changed_answers(probabilities: np.ndarray) -> float:
    """The share of answers that noise changes, divided by the square root of the divergence that it causes.

    It is simulated: every logit gets independent normal noise. A model that is sure of its answers keeps more of them
    at the same divergence. Rounding gave networks that were fine-tuned to a few classes 0.05 to 0.2, those of ImageNet
    0.5 to 0.65, and one that had hardly learned 1.1.

    Args:
        probabilities: The model's answers (N, classes), at least two classes.
    """
    logits = np.log(probabilities.astype(np.float64) + 1e-20)
    before = logits.argmax(axis=1)

    def noisy(scale: float) -> tuple[float, float]:
        """The divergence, and the share of answers that change."""
        random, divergence, changed = np.random.default_rng(0), 0.0, 0.0
        for _ in range(_DRAWS):
            after = logits + scale * random.standard_normal(logits.shape)
            changed += np.mean(after.argmax(axis=1) != before) / _DRAWS
            after -= after.max(axis=1, keepdims=True)
            after -= np.log(np.exp(after).sum(axis=1, keepdims=True))
            divergence += np.mean(np.sum(probabilities * (logits - after), axis=1)) / _DRAWS
        return float(divergence), float(changed)

    least, most = 1e-3, _MOST_NOISE
    while most > 1.01 * least:
        scale = np.sqrt(least * most)
        least, most = (least, scale) if noisy(scale)[0] > _TYPICAL else (scale, most)
    divergence, changed = noisy(most)
    return max(changed, 0.5 / len(logits)) / float(np.sqrt(divergence))
