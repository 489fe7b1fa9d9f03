"""From float32 values to small integers and back, bit for bit.

A float's *rank* is a uint32 that orders floats as their values do, -0.0 just below +0.0. Two kinds of arrays become
small signed codes, with 0 for +0.0: those on a *grid* (each value is one float32 step times a small integer), and those
with few distinct values, a *codebook* sorted by rank. Code c of a codebook is its c-th value above +0.0, or the c-th
below.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from sqz_keras.codec.errors import CodebookError

MAX_CODES = 4096  # of one array, 0 included
MAX_CODED = 1 << 22  # elements of an array with codes
_ZERO_RANK = np.uint32(0x80000000)


def to_ranks(values: np.ndarray) -> np.ndarray:
    """uint32 ranks of float32 values."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return np.where(bits >> 31 != 0, ~bits, bits | _ZERO_RANK)


def from_ranks(ranks: np.ndarray) -> np.ndarray:
    """float32 values of uint32 ranks."""
    return np.where(ranks >> 31 != 0, ranks & np.uint32(0x7FFFFFFF), ~ranks).astype(np.uint32).view(np.float32)


def to_planes(values: np.ndarray) -> np.ndarray:
    """(4, n) uint8: exponents, then the mantissas' high, middle and low bits, these with the sign as the lowest bit."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).ravel()
    turned = bits << 1 | bits >> 31
    return np.stack([(turned >> shift).astype(np.uint8) for shift in (24, 16, 8, 0)])


def from_planes(planes: np.ndarray) -> np.ndarray:
    """float32 values of (4, n) uint8 planes."""
    turned = np.zeros(planes.shape[1], np.uint32)
    for plane in planes:
        turned = turned << 8 | plane
    return (turned >> 1 | turned << 31).view(np.float32)


@dataclasses.dataclass(frozen=True)
class Quantized:
    """An array as small integers.

    Args:
        codes: int16, in the array's own shape.
        low: the lowest code, at most 0.
        high: the highest code, at least 0.
        step: of a grid; None where `values` is the codebook.
        values: float32 (high - low,), sorted by rank, without +0.0; None for a grid.
    """

    codes: np.ndarray
    low: int
    high: int
    step: np.float32 | None
    values: np.ndarray | None


def quantized(array: np.ndarray) -> Quantized | None:
    """The array as small integers, or None where it has too many distinct values for that to pay."""
    if array.size > MAX_CODED or len(np.unique(to_ranks(array.ravel()[: 4 * MAX_CODES]))) > MAX_CODES:
        return None
    ranks, inverse = np.unique(to_ranks(array.ravel()), return_inverse=True)
    ranks_of_values = ranks[ranks != _ZERO_RANK]
    if len(ranks_of_values) == 0:
        return Quantized(np.zeros(array.shape, np.int16), 0, 0, None, np.zeros(0, np.float32))
    if len(ranks) > MAX_CODES:
        return None
    below = int((ranks < _ZERO_RANK).sum())
    code_of_rank = np.arange(len(ranks)) - below
    if len(ranks_of_values) == len(ranks):
        code_of_rank[below:] += 1
    values = from_ranks(ranks_of_values)
    grid = _grid(from_ranks(ranks))
    if grid is not None:
        code_of_rank = grid[1]
    counts = np.bincount(inverse, minlength=len(ranks))
    if not _pays(array, counts, 32 if grid is not None else 26 * len(values)):
        return None
    codes = code_of_rank.astype(np.int16)[inverse].reshape(array.shape)
    low, high = min(0, int(code_of_rank.min(initial=0))), max(0, int(code_of_rank.max(initial=0)))
    return Quantized(codes, low, high, None if grid is None else grid[0], values if grid is None else None)


def grid_values(low: int, high: int, step: np.float32) -> np.ndarray:
    """float32 (high - low + 1,): the values of the codes of a grid."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.float32(step) * np.arange(low, high + 1).astype(np.float32)


def check_grid(values: np.ndarray, step: np.float32, offset: int) -> None:
    """Refuses a step that makes no grid of finite values."""
    if not 0 < step < np.inf or not np.isfinite(values).all():
        raise CodebookError(f"A grid of step {step}", offset)


def codebook_values(below: int, values: np.ndarray) -> np.ndarray:
    """float32: the values of the codes of a codebook, of which `below` are below +0.0, with +0.0 itself."""
    return np.concatenate([values[:below], np.zeros(1, np.float32), values[below:]])


def _pays(array: np.ndarray, counts: np.ndarray, side_bits: int) -> bool:
    """Whether codes at their entropy, and what stands beside them, are smaller than the planes at their entropy."""
    planes = [np.bincount(plane, minlength=256) for plane in to_planes(array)]
    planes_bits = sum(min(entropy(each) + 8 * np.count_nonzero(each[1:]), 8 * array.size) for each in planes)
    return side_bits + entropy(counts) + 2 * len(counts) < planes_bits + array.size / 4


def entropy(counts: np.ndarray) -> float:
    """Bits of symbols that occur so often, at their zero-order entropy."""
    counts = counts[counts > 0].astype(np.float64)
    return float(-(counts * np.log2(counts / counts.sum())).sum()) if len(counts) else 0.0


def _grid(values: np.ndarray) -> tuple[np.float32, np.ndarray] | None:
    """The float32 step and the integers whose products, as float32, are exactly these sorted distinct values."""
    exact = values.astype(np.float64)
    signed_zero = (values == 0) & np.signbit(values)
    if not exact.any() or signed_zero.any():
        return None
    largest = np.abs(exact).max()
    step = np.diff(np.union1d(exact, [0.0])).min()
    for _ in range(8):  # Euclid's algorithm, up to the values' own rounding
        if largest / step > MAX_CODES:
            return None
        step = _refined(exact, step)
        rest = np.abs(exact - step * np.rint(exact / step))
        rest = rest[rest > step / 64]
        if len(rest) == 0:
            break
        step = rest.min()
    integers = np.rint(exact / step)
    if integers.max(initial=0) - integers.min(initial=0) >= min(MAX_CODES, 256 + 8 * len(values)):
        return None
    used = integers != 0
    half = np.spacing(np.abs(values[used])).astype(np.float64) / 2
    least = ((np.abs(exact[used]) - half) / np.abs(integers[used])).max()
    most = ((np.abs(exact[used]) + half) / np.abs(integers[used])).min()
    for candidate in _float32_between(least, most):
        if np.array_equal(candidate * integers.astype(np.float32), values):
            return candidate, integers.astype(np.int64)
    return None


def _refined(exact: np.ndarray, step: float) -> float:
    """The step by values further and further from 0, whose rounding matters less and less."""
    for reach in (8, 64, 512, MAX_CODES):
        near = np.abs(exact[np.abs(exact) <= (reach + 0.5) * step]).max(initial=0.0)
        if near > step / 2:
            step = near / np.rint(near / step)
    return float(step)


def _float32_between(least: float, most: float) -> list[np.float32]:
    """The roundest float32 of an interval first (fewest mantissa bits), then its ends."""
    candidates = [np.float32(most), np.float32(least), np.float32((least + most) / 2)]
    candidates += [np.nextafter(candidate, np.float32(0)) for candidate in candidates]
    return [candidate for candidate in candidates if candidate > 0]
