"""Biases whose changes since a base are rounded, so that a delta against the base holds them in few bytes.

The biases of a network that was trained further differ from those of before in most of their 32 bits, and nearly all of
these bits are below what the network notices.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

BITS = 16  # of the largest bias of a layer: the precision that stays
_MOST_STEPS = 2047  # either way: what codec's arrays of codes hold


def round_bias_changes(
    arrays: Mapping[str, np.ndarray], base_arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Moves each bias to the base's value plus a multiple of a step.

    The step of a layer is a power of two, 2**-16 of its largest bias or a little more, and larger where the layer's
    largest change needs it. So a bias moves by at most half a step.

    Args:
        arrays: Weights by name, float32.
        base_arrays: Those of the base.

    Returns:
        The arrays, in which biases that the base has in the same shape are new ones.
    """
    return {
        name: _rounded(array, base_arrays[name])
        if name.endswith("/bias") and name in base_arrays and base_arrays[name].shape == array.shape
        else array
        for name, array in arrays.items()
    }


def _rounded(array: np.ndarray, base: np.ndarray) -> np.ndarray:
    changes = array.astype(np.float64) - base
    largest = np.abs(changes).max(initial=0)
    if largest == 0:
        return array
    step = 2.0 ** (np.frexp(np.abs(array).max())[1] - BITS)
    while largest > _MOST_STEPS * step:
        step *= 2
    return base + (step * np.rint(changes / step)).astype(np.float32)
