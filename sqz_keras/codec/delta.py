"""Deltas: arrays stored as differences from the arrays of the same names in another file, the base."""

from __future__ import annotations

import dataclasses

import numpy as np

from sqz_keras.codec.array_table import Kind, Row
from sqz_keras.codec.entropy import entropy_bits, symbol_counts
from sqz_keras.codec.types import Codes, CodesSpec
from sqz_keras.codec.values import MAX_CODES, CodedArray

# Differences are stored only if their entropy is below this share of the codes' own entropy: the models of the
# profiles gain more on codes than on differences.
_MAX_ENTROPY_SHARE = 0.9


@dataclasses.dataclass(frozen=True)
class BaseArray:
    """An array of the base.

    Args:
        array: Float32, the values.
        codes: Int16 (n,), or None if the base stores the array as floats or on a trellis.
    """

    array: np.ndarray
    codes: np.ndarray | None


def is_same(array: np.ndarray, base: BaseArray | None) -> bool:
    """Whether an array equals the base's array, bit for bit."""
    return (
        base is not None
        and array.shape == base.array.shape
        and np.array_equal(array.view(np.uint32), base.array.view(np.uint32))
    )


def subtract_base(name: str, coded: CodedArray, base: BaseArray | None) -> tuple[Row, list[Codes]] | None:
    """Turns the codes of an array into differences from the base's codes.

    Args:
        name: Name of the array.
        coded: The array.
        base: The base's array of this name, if there is one.

    Returns:
        The row of the array and the two arrays of differences: of the elements whose code in the base is not 0, and of
        the others. None if the base has no matching codes, or if the differences would not be smaller than the codes.
    """
    if base is None or base.codes is None or coded.codes.shape != base.array.shape:
        return None
    differences = coded.codes.ravel().astype(np.int32) - base.codes
    parts = [differences[base.codes != 0], differences[base.codes == 0]]
    ranges = tuple((int(part.min(initial=0)), int(part.max(initial=0))) for part in parts)
    if any(high - low >= MAX_CODES for low, high in ranges):
        return None
    difference_bits = sum(entropy_bits(symbol_counts(part)) for part in parts)
    if difference_bits >= _MAX_ENTROPY_SHARE * entropy_bits(symbol_counts(coded.codes)):
        return None
    kind = Kind.CODEBOOK_DELTA if coded.step is None else Kind.GRID_DELTA
    codes = [
        Codes(part.astype(np.int16), CodesSpec(part.shape, *bounds)) for part, bounds in zip(parts, ranges, strict=True)
    ]
    return Row(name, coded.codes.shape, kind, coded.low, coded.high, ranges), codes


def add_base(of_nonzero: np.ndarray, of_zero: np.ndarray, base_codes: np.ndarray) -> np.ndarray:
    """Adds differences to the base's codes.

    Args:
        of_nonzero: Int16 differences of the elements whose code in the base is not 0.
        of_zero: Int16 differences of the other elements.
        base_codes: Int16 (n,) codes of the base's array.

    Returns:
        Int32 (n,) codes.
    """
    codes = base_codes.astype(np.int32)
    nonzero = base_codes != 0
    codes[nonzero] += of_nonzero
    codes[~nonzero] = of_zero
    return codes
