"""What the two profiles take and give."""

from __future__ import annotations

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Shape:
    """An array of codes, as the table of arrays declares it.

    Args:
        shape: of the array.
        low: the lowest code, or 0 where all are higher.
        high: the highest code, or 0 where all are lower.
    """

    shape: tuple[int, ...]
    low: int
    high: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def coded(self) -> bool:
        """Whether there is anything to code: not where all elements are 0."""
        return self.low < self.high


@dataclasses.dataclass(frozen=True)
class Codes:
    """An array as small integers: what a profile codes.

    Args:
        flat: int16 (n,) codes.
        shape: the array's shape and range.
    """

    flat: np.ndarray
    shape: Shape


@dataclasses.dataclass(frozen=True)
class Decoded:
    """What a profile's stream held.

    Args:
        codes: int16 codes of each array.
        planes: uint8 planes.
        steps: the raw bytes of the grids' steps.
    """

    codes: list[np.ndarray]
    planes: list[np.ndarray]
    steps: bytes


@dataclasses.dataclass(frozen=True)
class Bits:
    """What is spent on what.

    Args:
        codes: bits of each array's codes.
        positions: bits of each array's positions.
        planes: bits of each plane.
    """

    codes: list[float]
    positions: list[float]
    planes: list[float]
