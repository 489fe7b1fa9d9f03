"""Deltas: arrays stored as differences from the arrays of the same names in another file, the base."""

from __future__ import annotations

import dataclasses

import numpy as np

from sqz_keras.codec.array_table import Kind, Row
from sqz_keras.codec.entropy import entropy_bits, symbol_counts
from sqz_keras.codec.types import Codes, CodesSpec
from sqz_keras.codec.values import MAX_CODED_ELEMENTS, MAX_CODES, CodedArray, grid_values

_SMALLEST_STEP, _LARGEST_STEP = 2.0**-149, 2.0**127  # the lowest and highest powers of two in float32

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


@dataclasses.dataclass(frozen=True)
class Base:
    """The base of a delta.

    Args:
        arrays: Its arrays by name.
        json: Its JSON text, the preset dictionary for the delta's JSON.
    """

    arrays: dict[str, BaseArray]
    json: bytes


NO_BASE = Base({}, b"")


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
        The row of the array and two arrays of differences: for the elements whose code in the base is not 0, and for
        the others. None if the base has no matching codes, or if storing differences would not save enough.
    """
    if base is None or base.codes is None or coded.codes.shape != base.array.shape:
        return None
    differences = coded.codes.ravel().astype(np.int32) - base.codes
    parts = [differences[base.codes != 0], differences[base.codes == 0]]
    ranges = tuple((int(part.min(initial=0)), int(part.max(initial=0))) for part in parts)
    if any(high - low >= MAX_CODES for low, high in ranges):
        return None
    difference_bits = _bits_given_base(parts[0], base.codes[base.codes != 0]) + entropy_bits(symbol_counts(parts[1]))
    if difference_bits >= _MAX_ENTROPY_SHARE * entropy_bits(symbol_counts(coded.codes)):
        return None
    kind = Kind.CODEBOOK_DELTA if coded.step is None else Kind.GRID_DELTA
    row = Row(name, coded.codes.shape, kind, coded.low, coded.high, ranges)
    specs = row.coded_specs(base.codes, version=2)
    return row, [Codes(part.astype(np.int16), spec) for part, spec in zip(parts, specs, strict=True)]


def _bits_given_base(differences: np.ndarray, base_codes: np.ndarray) -> float:
    """Bits of the differences at their conditional entropy, given the base's code of each element."""
    pairs = base_codes.astype(np.int64) * 2 * MAX_CODES + differences
    return entropy_bits(symbol_counts(pairs)) - entropy_bits(symbol_counts(base_codes))


def subtract_floats(name: str, array: np.ndarray, base: BaseArray | None) -> tuple[Row, list[Codes], CodedArray] | None:
    """Finds a power of two as a step: an array's differences from the base's values are small multiples of it.

    Args:
        name: Name of the array.
        array: Float32, its values.
        base: The base's array of this name, if there is one.

    Returns:
        The row of the array, its codes for the profile, and the same codes with the step. None if there is no such
        step.
    """
    if base is None or base.array.shape != array.shape or array.size > MAX_CODED_ELEMENTS:
        return None
    differences = array.astype(np.float64) - base.array
    exponent = int(np.frexp(np.abs(differences).max(initial=0))[1])  # the largest difference is below 2**exponent
    for lower in range(1, MAX_CODES.bit_length()):
        step = 2.0 ** (exponent - lower)
        codes = np.rint(differences / step)
        low, high = int(codes.min(initial=0)), int(codes.max(initial=0))
        if not _SMALLEST_STEP <= step <= _LARGEST_STEP or high - low >= MAX_CODES:
            continue
        moved = add_to_floats(base.array, grid_values(codes, np.float32(step)))
        if low < high and np.array_equal(moved.view(np.uint32), array.view(np.uint32)):
            row = Row(name, array.shape, Kind.PLANES_DELTA, low, high)
            coded = CodedArray(codes.astype(np.int16), low, high, np.float32(step), None)
            return row, [Codes(coded.codes.ravel(), CodesSpec(array.shape, low, high))], coded
    return None


def add_to_floats(base: np.ndarray, differences: np.ndarray) -> np.ndarray:
    """Returns the float32 sums of the base's values and the differences; the sums may be infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return base + differences


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
