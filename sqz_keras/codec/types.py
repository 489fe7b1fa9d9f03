"""The data that the two profiles take and return."""

from __future__ import annotations

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class CodesSpec:
    """Shape and range of an array of codes, as the table of arrays declares them.

    Args:
        shape: Shape of the array.
        low: The lowest code, or 0 if all codes are higher.
        high: The highest code, or 0 if all codes are lower.
        rows: Integers (n,), the row of each element, counted from 0, if a one-dimensional array is treated as rows of
            different lengths and a single column. Otherwise None: the shape says where the elements are.
    """

    shape: tuple[int, ...]
    low: int
    high: int
    rows: np.ndarray | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def code_count(self) -> int:
        """Number of integers from the lowest to the highest code."""
        return self.high - self.low + 1

    @property
    def all_zero(self) -> bool:
        """Whether the range contains only 0, so that there is nothing to code."""
        return self.low == self.high


@dataclasses.dataclass(frozen=True)
class Codes:
    """An array of small integers, which a profile codes.

    Args:
        flat: Int16 (n,), the codes in C order.
        spec: Shape and range of the array.
    """

    flat: np.ndarray
    spec: CodesSpec


@dataclasses.dataclass(frozen=True)
class PlanesSpec:
    """What the eight planes hold, as the table of arrays declares it.

    Args:
        float_shapes: Shape of each array that is stored as floats.
        codebook_values: Number of values in all codebooks together.
    """

    float_shapes: list[tuple[int, ...]]
    codebook_values: int

    @property
    def sizes(self) -> list[int]:
        """Number of bytes of each plane."""
        return [sum(map(math.prod, self.float_shapes))] * 4 + [self.codebook_values] * 4


@dataclasses.dataclass(frozen=True)
class EncodedStreams:
    """The bytes that a profile writes.

    Args:
        table: The profile's part of the table of arrays.
        raw: Bytes stored as they are, the payload of the section VALS.
        coded: The entropy-coded stream, the payload of the section CODE.
        version: The lowest version of the format that supports these streams.
    """

    table: bytes
    raw: bytes
    coded: bytes
    version: int = 1


@dataclasses.dataclass(frozen=True)
class BitCounts:
    """The bits that a profile spends.

    Args:
        codes: Bits of the codes of each array.
        positions: Bits of the positions of each array.
        planes: Bits of each plane.
    """

    codes: list[float]
    positions: list[float]
    planes: list[float]


@dataclasses.dataclass(frozen=True)
class DecodedStreams:
    """What a profile reads back.

    Args:
        codes: Int16 (n,) codes, one array for each `CodesSpec`.
        planes: Uint8 (n,), the eight planes.
        steps: The steps of all grids, as float32 bytes.
        modes: The mode of each plane.
        bits: The bits of each array and plane; None if they were not counted.
    """

    codes: list[np.ndarray]
    planes: list[np.ndarray]
    steps: bytes
    modes: list[int]
    bits: BitCounts | None
