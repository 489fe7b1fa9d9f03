"""Learning rates and mixup: pure functions of the number of updates done."""

from __future__ import annotations

import math

import numpy as np

from trainers.training.config import TrainConfig


def learning_rate(config: TrainConfig, step: int) -> float:
    """The rate of the update after `step` updates: "poly" for the authors' solver, cosine for the modern one."""
    rates = (config.base_learning_rate, config.max_steps)
    if config.solver == "modern":
        return cosine_decay(step, *rates, config.warmup_steps)
    return poly_decay(step, *rates, config.power, config.warmup_steps)


def cosine_decay(step: int, base_learning_rate: float, max_steps: int, warmup_steps: int = 0) -> float:
    """base_learning_rate * (1 + cos(pi * step / max_steps)) / 2, after a warm-up as in `poly_decay`."""
    return _warmup(step, warmup_steps) * base_learning_rate * (1 + math.cos(math.pi * step / max_steps)) / 2


def poly_decay(
    step: int, base_learning_rate: float, max_steps: int, power: float = 1.0, warmup_steps: int = 0
) -> float:
    """Caffe's "poly" policy, base_learning_rate * (1 - step / max_steps) ** power, after an optional warm-up.

    During the first `warmup_steps` updates the rate is multiplied by (step + 1) / warmup_steps.

    Args:
        step: Updates done so far, 0..max_steps; one update may accumulate the gradients of several micro-batches.
        base_learning_rate: Rate of the first update.
        max_steps: Updates of the whole run; after them the rate would be 0.
        power: Exponent; 1 decays linearly.
        warmup_steps: Updates of the warm-up; 0 is none, as in the authors' solver.
    """
    return _warmup(step, warmup_steps) * base_learning_rate * (1 - step / max_steps) ** power


def mixup_share(config: TrainConfig, step: int) -> float:
    """The weight of an image's own pixels in mixup at this step, in [0, 1], from Beta(alpha, alpha); 1 is no mixup.

    It depends only on the seed and the step, so that a resumed run draws the same value.
    """
    alpha = config.mixup_alpha
    return float(np.random.default_rng([config.seed, step]).beta(alpha, alpha)) if alpha else 1.0


def _warmup(step: int, warmup_steps: int) -> float:
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
