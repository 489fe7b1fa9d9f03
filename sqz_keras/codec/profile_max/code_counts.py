"""Counts of the non-zero codes of each array, and the weights that the counts give to codes without any context.

The codes of all arrays are numbered consecutively: the range of the first array, then that of the second, and so on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from sqz_keras.codec.profile_max.groups import sum_by_group

BUCKETS = 16
SHARE_BITS = 12  # a share of 1 is 2**12
_REACH = 6  # counts are smoothed over this many codes on each side


@dataclasses.dataclass(frozen=True)
class Buckets:
    """The codes of each array, divided into 16 buckets of about equal weight.

    Args:
        bucket: Int64 (codes,), the bucket of each code.
        share: Int64 (arrays, 16), the share of each bucket in the weight of its array, times 2**12.
    """

    bucket: np.ndarray
    share: np.ndarray


class CodeCounts:
    """Counts the codes of each array.

    Args:
        ranges: The lowest and the highest code of each array; at least one of them is not 0.

    Attributes:
        low: Int64 (arrays,), the lowest code of each array.
        sizes: Int64 (arrays,), the number of codes in its range.
        first: Int64 (arrays,), the index of its lowest code.
        array: Int64 (codes,), the array of each code.
        possible: Int64 (codes,), 0 for the code 0, else 1.
        reserved: Int64 (codes,), the sum of `possible` from the lowest code of the array to this one.
        by_magnitude: Int64 (codes,), the codes of each array sorted by magnitude.
        by_value: Int64 (codes,), the codes of each array sorted by value.
    """

    def __init__(self, ranges: Sequence[tuple[int, int]]):
        self.low, high = np.array(ranges).T
        self.sizes = high - self.low + 1
        self.first = np.cumsum(self.sizes) - self.sizes
        self.array = np.repeat(np.arange(len(ranges)), self.sizes)
        self.by_value = np.arange(len(self.array))
        code = self.by_value - self.first[self.array] + self.low[self.array]
        self.by_magnitude = np.lexsort((code, np.abs(code), self.array))
        self.possible = (code != 0).astype(np.int64)
        self.reserved = code - self.low[self.array] + (code < 0)
        out_of_range = (-code < self.low[self.array]) | (-code > high[self.array])
        self._opposite = np.where(out_of_range, 0, self.by_value - 2 * code)  # the index of the code -c
        self._has_opposite = np.where(out_of_range, 0, self.possible)
        # The index of each code in a buffer with gaps between the arrays, so that smoothing does not mix them.
        self._padded_index = self.by_value + (2 * self.array + 1) * _REACH
        self._padded_size = len(code) + (2 * len(ranges) + 3) * _REACH
        self._room = np.maximum(self._smoothed(self.possible), 1)
        self._counts = np.zeros(len(code), np.int64)

    def index(self, array: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Returns the index of codes of the given arrays."""
        return (self.first - self.low).take(array) + codes

    def update(self, index: np.ndarray) -> None:
        """Counts codes, given by their index."""
        self._counts += np.bincount(index, minlength=len(self._counts))

    def weights(self) -> np.ndarray:
        """Returns int64 (codes,): the count of each code, plus a share of the counts around it and its opposite."""
        both = self._counts + self._counts[self._opposite] * self._has_opposite
        smooth = (256 * self._smoothed(both) // self._room + 64) * self.possible
        total = np.add.reduceat(smooth, self.first)[self.array]
        return (self._counts << 16) + (4 * self.sizes[self.array] << 16) * smooth // total

    def _smoothed(self, values: np.ndarray) -> np.ndarray:
        """Returns int64 (codes,): for each code the sum over the codes around it, with triangular weights."""
        padded = np.zeros(self._padded_size, np.int64)
        padded[self._padded_index] = values
        for _ in range(2):  # two sums over _REACH + 1 codes make one with triangular weights
            sums = np.cumsum(padded)
            padded[_REACH + 1 :] = sums[_REACH + 1 :] - sums[: -_REACH - 1]
        return padded[self._padded_index + _REACH]

    def buckets(self, weights: np.ndarray, array_weights: np.ndarray, order: np.ndarray) -> Buckets:
        """Divides the codes of each array into buckets.

        Args:
            weights: Int64 (codes,), what `weights` returned.
            array_weights: Int64 (arrays,), the sum of `weights` in each array.
            order: `by_magnitude` or `by_value`: the order in which the buckets take codes.
        """
        weight = weights[order]
        middle = np.cumsum(weight) - weight // 2 - (np.cumsum(array_weights) - array_weights)[self.array]
        bucket = np.empty(len(weights), np.int64)
        bucket[order] = np.minimum(middle * BUCKETS // array_weights[self.array], BUCKETS - 1)
        share = sum_by_group(self.array * BUCKETS + bucket, weights, len(array_weights) * BUCKETS)
        return Buckets(bucket, (share.reshape(-1, BUCKETS) << SHARE_BITS) // array_weights[:, None])
