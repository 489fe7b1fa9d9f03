"""Learning rates: pure functions of the number of updates done."""

from __future__ import annotations


def poly_decay(
    step: int, base_learning_rate: float, max_steps: int, power: float = 1.0, warmup_steps: int = 0
) -> float:
    """Caffe's "poly" policy, base_learning_rate * (1 - step / max_steps) ** power, after an optional warm-up.

    During the first `warmup_steps` updates the rate is that, times (step + 1) / warmup_steps.

    Args:
        step: updates done so far, 0..max_steps; one update may accumulate the gradients of several micro-batches.
        base_learning_rate: the rate of the first update.
        max_steps: updates of the whole run; the rate would be 0 after them.
        power: 1 decays linearly.
        warmup_steps: 0 is none, as in the authors' solver.
    """
    warmup = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    return warmup * base_learning_rate * (1 - step / max_steps) ** power
