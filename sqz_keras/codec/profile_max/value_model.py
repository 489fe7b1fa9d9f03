"""The model of the codes that are not zero: their counts in the array, smoothed, and tilted by what is around them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sqz_keras.codec.profile_max.rans import cumulative
from sqz_keras.codec.profile_max.scan_order import Places

_REACH = 6  # codes on each side over which counts are smoothed
_BUCKETS = 16
_SHRINK = 40  # codes that a context's own distribution must outweigh
_SCALES = np.array([210, 241, 271, 307])  # 256ths of the array's mean magnitude that bound the contexts of scale
_SIGNS = np.array([-24, -12, -4, 0, 1, 4, 12, 24])  # 8ths of it that bound the contexts of sign
_UNIT = 12  # bits of the fraction in ratios


class ValueModel:
    """Learns from the codes so far how likely others are; integers only.

    A code's probability is that in its array, times two ratios, each looked up by a context and a bucket of codes of
    about equal probability. The context of scale comes from the magnitudes in the element's row and column, its buckets
    order the codes by magnitude and are shared by all arrays. The context of sign comes from the codes beside it in its
    image, or where there is none from the codes of its row and column; its buckets order the codes by value.

    Args:
        places: of the elements.
        ranges: (lowest, highest) code of each array, not both 0.
    """

    def __init__(self, places: Places, ranges: Sequence[tuple[int, int]]):
        self._places = places
        low, high = np.array(ranges).T
        self._low, self._sizes = low, high - low + 1
        self._first = np.cumsum(self._sizes) - self._sizes
        self._owner = np.repeat(np.arange(len(low)), self._sizes)
        self._code = np.arange(len(self._owner)) - self._first[self._owner] + low[self._owner]
        self._by_magnitude = np.lexsort((self._code, np.abs(self._code), self._owner))
        self._valid = (self._code != 0).astype(np.int64)
        mirror = np.arange(len(self._code)) - 2 * self._code
        outside = -self._code < low[self._owner]
        outside |= -self._code > high[self._owner]
        self._mirror = np.where(outside, 0, mirror)
        self._mirrored = np.where(outside, 0, self._valid)
        self._spaced = np.arange(len(self._code)) + (2 * self._owner + 1) * _REACH
        self._counts = np.zeros(len(self._code), np.int64)
        self._rows = np.zeros((3, len(places.array_of_row)), np.int64)  # non-zeros, their magnitudes, their sum
        self._columns = np.zeros((3, len(places.array_of_column)), np.int64)
        self._arrays = np.zeros((3, len(low)), np.int64)
        self._cells = np.zeros(places.cells, np.int32)
        self._scale = np.zeros((2, (len(_SCALES) + 1) * _BUCKETS), np.int64)  # found and expected
        self._sign = np.zeros((2, len(low) * (len(_SIGNS) + 1) * _BUCKETS), np.int64)

    def tables(self, elements: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The distributions of these elements' codes.

        Returns:
            The elements in the order of their tables, so that neighbours share one; the lowest code of each; and
            (starts, tables, first) as `rans.Encoder.symbols` takes them, symbols being codes less the lowest.
        """
        places = self._places
        row, column, cell = (group.take(elements) for group in (places.row, places.column, places.cell))
        array = places.array_of_row.take(row)
        contexts = len(_SCALES) + 1, len(_SIGNS) + 1
        key = array * contexts[0] + self._scales(row, column, array)
        key = key * contexts[1] + self._signs(row, column, cell, array)
        uses = np.bincount(key)
        used = np.flatnonzero(uses)
        self._uses, tables = uses[used], np.repeat(np.arange(len(used)), uses[used])
        order = np.argsort(key.astype(np.uint16), kind="stable")
        self._row, self._column, self._cell = row.take(order), column.take(order), cell.take(order)
        self._array = array.take(order)
        starts, first = self._starts(used, *contexts)
        self._tables = tables
        return elements.take(order), self._low.take(self._array), starts, tables, first

    def _starts(self, used: np.ndarray, scales: int, signs: int) -> tuple[np.ndarray, np.ndarray]:
        """The tables of these numbers, (array * scales + context of scale) * signs + context of sign."""
        base = self._base()
        mass = np.add.reduceat(base, self._first)
        self._bucket_scale, self._share_scale = self._buckets(base, mass, self._by_magnitude)
        self._bucket_sign, self._share_sign = self._buckets(base, mass, np.arange(len(base)))
        owner, rest = np.divmod(used, scales * signs)
        self._table_scale, sign = np.divmod(rest, signs)
        self._table_sign = owner * signs + sign
        self._table_owner = owner
        sizes = self._sizes[owner]
        first = np.cumsum(sizes) - sizes
        at = np.arange(sizes.sum()) + np.repeat(self._first[owner] - first, sizes)
        weight = ((base << 20) // mass[self._owner] + self._valid).take(at)
        tilt = np.repeat(self._table_scale * _BUCKETS, sizes)
        tilt += self._bucket_scale.take(at)
        weight *= self._ratio(self._scale).take(tilt)
        weight >>= 6
        tilt = np.repeat(self._table_sign * _BUCKETS, sizes)
        tilt += self._bucket_sign.take(at)
        weight *= self._ratio(self._sign).take(tilt)
        return cumulative(weight, self._valid.take(at), first), first

    def _base(self) -> np.ndarray:
        """Weight of each code in its array: its count, and a share of the counts around it and of the opposite ones."""
        both = self._counts + self._counts[self._mirror] * self._mirrored
        spaced = np.zeros((2, len(both) + (2 * len(self._sizes) + 3) * _REACH), np.int64)
        spaced[:, self._spaced] = both, self._valid
        for _ in range(2):  # two means over _REACH + 1 codes are one with triangular weights
            sums = np.cumsum(spaced, axis=1)
            spaced[:, _REACH + 1 :] = sums[:, _REACH + 1 :] - sums[:, : -_REACH - 1]
        near = spaced[:, self._spaced + _REACH]
        smooth = (256 * near[0] // np.maximum(near[1], 1) + 64) * self._valid
        total = np.add.reduceat(smooth, self._first)[self._owner]
        return (self._counts << 16) + (4 * self._sizes[self._owner] << 16) * smooth // total

    def _buckets(self, base: np.ndarray, mass: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The bucket of each code, and what share of each array's weight each bucket holds."""
        weight = base[order]
        middle = np.cumsum(weight) - weight // 2 - (np.cumsum(mass) - mass)[self._owner]
        bucket = np.empty(len(base), np.int64)
        bucket[order] = np.minimum(middle * _BUCKETS // mass[self._owner], _BUCKETS - 1)
        share = np.zeros((len(mass), _BUCKETS), np.int64)
        np.add.at(share, (self._owner, bucket), base)
        return bucket, (share << _UNIT) // mass[:, None]

    @staticmethod
    def _ratio(tally: np.ndarray) -> np.ndarray:
        """How much more often each bucket was found in its context than expected, in 2**-12."""
        found, expected = tally
        ratio = (found + _SHRINK << 2 * _UNIT) // (expected + (_SHRINK << _UNIT))
        return np.clip(ratio, 1 << _UNIT - 4, 1 << _UNIT + 4)

    def _scales(self, row: np.ndarray, column: np.ndarray, array: np.ndarray) -> np.ndarray:
        """The context of scale: mean magnitudes of row and column against the array's."""
        found, size = self._arrays[0], np.maximum(self._arrays[1], 1)
        product = 1
        for (count, sizes, _), owner, line in self._lines(row, column):
            mean = (sizes * found[owner] + 20 * size[owner] << 8) // ((count + 20) * size[owner])
            product = product * mean.take(line)
        return np.searchsorted(_SCALES, np.where(found[array] > 0, product >> 8, 256))

    def _signs(self, row: np.ndarray, column: np.ndarray, cell: np.ndarray, array: np.ndarray) -> np.ndarray:
        """The context of sign: codes of the four neighbours, or what row and column have beyond the array's mean."""
        found, size, total = self._arrays
        tilt = np.zeros(len(array), np.int64)
        for (count, _, sums), owner, line in self._lines(row, column):
            beyond = 256 * (sums * found[owner] - count * total[owner]) // (np.maximum(found[owner], 1) * (count + 30))
            tilt += beyond.take(line)
        imaged = np.flatnonzero(cell)
        cell = cell.take(imaged)
        down, right = self._places.strides[array.take(imaged)].T
        near = sum(self._cells.take(cell + step) for step in (-down, down, -right, right))
        tilt[imaged] = near.astype(np.int64) << 6
        return np.searchsorted(_SIGNS, tilt * found[array] // (8 * np.maximum(size, 1))[array], "right")

    def _lines(self, row: np.ndarray, column: np.ndarray) -> tuple:
        """(sums, array of each, which of them each element is in) of rows, then of columns."""
        places = self._places
        return (self._rows, places.array_of_row, row), (self._columns, places.array_of_column, column)

    def learn(self, codes: np.ndarray) -> None:
        """Takes in the codes, none 0, of the elements that the last call of `tables` gave back."""
        at = (self._first - self._low).take(self._array) + codes
        self._counts += np.bincount(at, minlength=len(self._counts))
        for found, context, buckets, share in (
            (self._scale, self._table_scale, self._bucket_scale, self._share_scale),
            (self._sign, self._table_sign, self._bucket_sign, self._share_sign),
        ):
            found[0] += np.bincount(context[self._tables] * _BUCKETS + buckets[at], minlength=found.shape[1])
            expected = self._uses[:, None] * share[self._table_owner]
            at_bucket = context[:, None] * _BUCKETS + np.arange(_BUCKETS)
            found[1] += _sums(at_bucket.ravel(), expected.ravel(), found.shape[1])
        for sums, group in ((self._rows, self._row), (self._columns, self._column)):
            sums[0] += np.bincount(group, minlength=sums.shape[1])
            sums[1] += _sums(group, np.abs(codes), sums.shape[1])
            sums[2] += _sums(group, codes, sums.shape[1])
        self._arrays = np.stack([_sums(self._places.array_of_row, sums, len(self._low)) for sums in self._rows])
        self._cells[self._cell] = codes
        self._cells[0] = 0


def _sums(group: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """int64 (count,): the sum of the integer values of each group."""
    return np.bincount(group, values, minlength=count).astype(np.int64)
