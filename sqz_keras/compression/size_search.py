"""Searching for the coarseness of the grids, and for the aim of an attempt, with which a file has a given size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


class TooFewBytesError(ValueError):
    """Nothing useful fits into the requested number of bytes."""


def finest_coarseness(size: Callable[[float], float], target_bytes: float) -> float:
    """The finest coarseness whose size is at most the target, to half a percent.

    Raises:
        TooFewBytesError: At a coarseness of 1 the size is still above the target.
    """
    finest, coarsest = (np.log2(bound) for bound in (1e-12, 1.0))
    if size(float(2.0**coarsest)) > target_bytes:
        raise TooFewBytesError(f"At any coarseness the arrays have more than {target_bytes:.0f} bytes.")
    while finest > -60 and size(float(2.0**finest)) <= target_bytes:  # the model is very sure of its answers
        finest, coarsest = 2 * finest, finest
    while coarsest - finest > 0.005:
        middle = (finest + coarsest) / 2
        finest, coarsest = (finest, middle) if size(float(2.0**middle)) <= target_bytes else (middle, coarsest)
    return float(2.0**coarsest)


def next_aim(tried: list[tuple[int, float]], target: float) -> float:
    """The aim for `target` bytes: between the nearest (bytes, aim) on both sides, or beyond those on the only side.

    With a single attempt, the aim changes in proportion. With several on one side, the line through the nearest and the
    farthest shows how much of the file follows the aim. In a small file that may be half, and in proportion the aim
    would approach the target too slowly.
    """
    below = max((point for point in tried if point[0] <= target), default=None)
    above = min((point for point in tried if point[0] > target), default=None)
    if below and above:
        return below[1] + (above[1] - below[1]) * (target - below[0]) / (above[0] - below[0])
    size, aim = below or above
    far_size, far_aim = min(tried) if below else max(tried)
    if far_size == size:
        return aim * target / size
    per_byte = max((far_aim - aim) / (far_size - size), aim / size)
    return float(np.clip(aim + per_byte * (target - size), aim / 2, 2 * aim))
