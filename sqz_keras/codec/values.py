"""Conversion of float32 values to small integers, ranks and byte planes, and back, bit for bit.

The *rank* of a float is a uint32; ranks order floats by value, with -0.0 just below +0.0. Two kinds of arrays become
small signed *codes*, with code 0 for +0.0:

- arrays on a *grid*: each value is one float32 step times a small integer, and the integer is the code;
- arrays with few distinct values: these form a *codebook* sorted by rank. Code c > 0 is the c-th value above +0.0,
  code -c the c-th value below.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from sqz_keras.codec.entropy import entropy_bits
from sqz_keras.codec.errors import CodebookError

MAX_CODES = 4096  # limit for the range of one array's codes, 0 included
MAX_CODED_ELEMENTS = 1 << 22  # limit for the elements of an array of codes
ZERO_RANK = np.uint32(0x80000000)  # the rank of +0.0
_CODEBOOK_VALUE_BITS = 26  # estimated cost of a value in a codebook
_STEP_BITS = 32


def to_ranks(values: np.ndarray) -> np.ndarray:
    """Returns the uint32 ranks of float32 values."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return np.where(bits >> 31 != 0, ~bits, bits | ZERO_RANK)


def from_ranks(ranks: np.ndarray) -> np.ndarray:
    """Returns the float32 values of uint32 ranks."""
    return np.where(ranks >> 31 != 0, ranks & np.uint32(0x7FFFFFFF), ~ranks).astype(np.uint32).view(np.float32)


def to_planes(values: np.ndarray) -> np.ndarray:
    """Splits float32 values into uint8 (4, n).

    The rows are the exponents, then the high, middle and low bits of the mantissas; the sign is the lowest bit of the
    last row.
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).ravel()
    rotated = bits << 1 | bits >> 31
    return np.stack([(rotated >> shift).astype(np.uint8) for shift in (24, 16, 8, 0)])


def from_planes(planes: np.ndarray) -> np.ndarray:
    """Joins uint8 (4, n) planes into float32 (n,) values."""
    rotated = np.zeros(planes.shape[1], np.uint32)
    for plane in planes:
        rotated = rotated << 8 | plane
    return (rotated >> 1 | rotated << 31).view(np.float32)


@dataclasses.dataclass(frozen=True)
class CodedArray:
    """An array as small integers, with what turns them back into its values: a grid's step or a codebook.

    Args:
        codes: Int16, in the shape of the array.
        low: The lowest code, at most 0.
        high: The highest code, at least 0.
        step: The step of the grid; None for a codebook.
        codebook: Float32 (high - low,), sorted by rank, without +0.0; None for a grid.
    """

    codes: np.ndarray
    low: int
    high: int
    step: np.float32 | None
    codebook: np.ndarray | None


def to_codes(array: np.ndarray) -> CodedArray | None:
    """Finds the codes of a float32 array; returns None if codes would take more bytes than the floats themselves."""
    if array.size > MAX_CODED_ELEMENTS or len(np.unique(to_ranks(array.ravel()[: 4 * MAX_CODES]))) > MAX_CODES:
        return None
    ranks, index_of_rank = np.unique(to_ranks(array.ravel()), return_inverse=True)
    codebook_ranks = ranks[ranks != ZERO_RANK]
    if len(codebook_ranks) == 0:
        return CodedArray(np.zeros(array.shape, np.int16), 0, 0, None, np.zeros(0, np.float32))
    if len(ranks) > MAX_CODES:
        return None
    step, codebook = None, from_ranks(codebook_ranks)
    grid = _find_grid(from_ranks(ranks))
    if grid is not None:
        (step, code_of_rank), codebook = grid, None
    else:
        below = int((ranks < ZERO_RANK).sum())
        code_of_rank = np.arange(len(ranks)) - below
        if len(codebook_ranks) == len(ranks):  # the array has no +0.0, so no value may get code 0
            code_of_rank[below:] += 1
    counts = np.bincount(index_of_rank, minlength=len(ranks))
    if not _codes_are_smaller(array, counts, _STEP_BITS if codebook is None else _CODEBOOK_VALUE_BITS * len(codebook)):
        return None
    codes = code_of_rank.astype(np.int16)[index_of_rank].reshape(array.shape)
    low, high = int(code_of_rank.min(initial=0)), int(code_of_rank.max(initial=0))
    return CodedArray(codes, low, high, step, codebook)


def grid_values(integers: np.ndarray, step: np.float32) -> np.ndarray:
    """Returns the float32 values of integers on a grid."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.float32(step) * integers.astype(np.float32)


def check_grid(values: np.ndarray, step: np.float32, offset: int) -> None:
    """Raises `CodebookError` if the step is not positive and finite, or if a value of the grid is not finite."""
    if not 0 < step < np.inf or not np.isfinite(values).all():
        raise CodebookError(f"A grid has the step {step}; expected a positive step and finite values", offset)


def codebook_values(below: int, codebook: np.ndarray) -> np.ndarray:
    """Returns float32 (values + 1,): the values of a codebook's codes, with +0.0 after the first `below` values."""
    return np.concatenate([codebook[:below], np.zeros(1, np.float32), codebook[below:]])


def _codes_are_smaller(array: np.ndarray, counts: np.ndarray, side_bits: int) -> bool:
    """Whether codes take fewer bits than byte planes, both at their entropy.

    Args:
        array: The float32 array.
        counts: How often each code occurs.
        side_bits: Bits of the step or the codebook.
    """
    histograms = [np.bincount(plane, minlength=256) for plane in to_planes(array)]
    plane_bits = sum(
        min(entropy_bits(histogram) + 8 * np.count_nonzero(histogram[1:]), 8 * array.size) for histogram in histograms
    )
    return side_bits + entropy_bits(counts) + 2 * len(counts) < plane_bits + array.size / 4


def _find_grid(values: np.ndarray) -> tuple[np.float32, np.ndarray] | None:
    """Finds a float32 step and integers whose products, rounded to float32, are exactly the given values.

    Args:
        values: Float32, sorted and distinct.

    Returns:
        The step and int64 integers, or None if there is no such grid with small enough integers.
    """
    exact = values.astype(np.float64)
    has_negative_zero = ((values == 0) & np.signbit(values)).any()
    if not exact.any() or has_negative_zero:
        return None
    step = _common_divisor(exact)
    if step is None:
        return None
    integers = np.rint(exact / step)
    if integers.max(initial=0) - integers.min(initial=0) >= min(MAX_CODES, 256 + 8 * len(values)):
        return None
    used = integers != 0
    half_ulp = np.spacing(np.abs(values[used])).astype(np.float64) / 2
    least = ((np.abs(exact[used]) - half_ulp) / np.abs(integers[used])).max()
    most = ((np.abs(exact[used]) + half_ulp) / np.abs(integers[used])).min()
    for candidate in _float32_candidates(least, most):
        if np.array_equal(candidate * integers.astype(np.float32), values):
            return candidate, integers.astype(np.int64)
    return None


def _common_divisor(exact: np.ndarray) -> float | None:
    """Finds a step that nearly divides all values, by Euclid's algorithm with a tolerance for rounding errors.

    Args:
        exact: Float64 values, not all 0.

    Returns:
        The step, or None if a value would need an integer above `MAX_CODES`.
    """
    largest = np.abs(exact).max()
    step = np.diff(np.union1d(exact, [0.0])).min()
    for _ in range(8):
        if largest / step > MAX_CODES:
            return None
        step = _refine(exact, step)
        remainders = np.abs(exact - step * np.rint(exact / step))
        remainders = remainders[remainders > step / 64]
        if len(remainders) == 0:
            break
        step = remainders.min()
    return step


def _refine(exact: np.ndarray, step: float) -> float:
    """Corrects the step with values further and further from 0: rounding errors matter less in their quotients."""
    for reach in (8, 64, 512, MAX_CODES):
        farthest = np.abs(exact[np.abs(exact) <= (reach + 0.5) * step]).max(initial=0.0)
        if farthest > step / 2:
            step = farthest / np.rint(farthest / step)
    return float(step)


def _float32_candidates(least: float, most: float) -> list[np.float32]:
    """Returns positive float32 steps to try: the ends and the middle of an interval, and their lower neighbours."""
    candidates = [np.float32(most), np.float32(least), np.float32((least + most) / 2)]
    candidates += [np.nextafter(candidate, np.float32(0)) for candidate in candidates]
    return [candidate for candidate in candidates if candidate > 0]
