"""The grids that arrays are rounded to: a step for each array, by how much the answers depend on its weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

_MOST_STEPS = 1500  # in the range of an array


def grid_steps(
    sensitivity: Mapping[str, float], coarseness: float, early_coarser: float
) -> dict[str, np.float32 | None]:
    """The step of each array's grid: coarseness / sqrt(sensitivity), or None if the sensitivity is 0.

    Args:
        sensitivity: Sensitivity by array in net order, in 1 / weight**2, as `sensitivities` returns it.
        coarseness: The size of a typical step, as a multiple of 1 / sqrt(sensitivity).
        early_coarser: The first array's step is multiplied by this factor and the last array's is divided by it; in
            between, the factor's exponent falls evenly from 1 to -1.
    """
    steps = {}
    for (name, value), place in zip(sensitivity.items(), np.linspace(1, -1, len(sensitivity)), strict=True):
        steps[name] = np.float32(coarseness * early_coarser**place / np.sqrt(value)) if value > 0 else None
    return steps


def finest_step(array: np.ndarray) -> np.float32:
    """The finest step that is useful: with a finer one, a file stores the floats themselves."""
    return np.float32(np.ptp(array) / min(_MOST_STEPS, 100 + array.size))


def on_grid(array: np.ndarray, step: np.float32 | None) -> np.ndarray:
    """The multiples of `step` nearest to the values, without -0.0; all 0 if the step is None."""
    return np.zeros_like(array) if step is None else step * np.rint(array / step).astype(np.float32) + np.float32(0)
