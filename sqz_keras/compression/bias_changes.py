"""Rounds the changes of biases since a base, so that a delta against the base stores them in few bytes.

Further training of a network changes most of the 32 bits of each bias, but nearly all of these changes are too small to
affect the answers.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

BITS = 16  # precision that is kept, relative to the largest bias of the layer
_MOST_STEPS = 2047  # in either direction: what an array of codes can hold in the codec


def round_bias_changes(
    arrays: Mapping[str, np.ndarray], base_arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Moves each bias to the base's value plus a multiple of a step.

    A layer's step is a power of two: 2**-16 to 2**-15 of its largest bias, or more if the layer's largest change needs
    it. So a bias moves by at most half a step.

    Args:
        arrays: Weights by name, float32.
        base_arrays: The base's weights by name.

    Returns:
        The arrays. Biases that the base has in the same shape are replaced.
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
