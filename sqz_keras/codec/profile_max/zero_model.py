"""The context model of the zeros: how likely an element is to be 0, given its array, row, column, tap and slice."""

from __future__ import annotations

import dataclasses

import numpy as np

from sqz_keras.codec.profile_max.groups import add_counts, sum_by_group
from sqz_keras.codec.profile_max.rans import TOTAL
from sqz_keras.codec.profile_max.scan_order import Scan

_PRIOR_ELEMENTS = 120.0  # weight of the array's density in the density of a row, column or tap
_CLASSES = 25  # of an element, by how many elements of its slice are decoded, and how many of them are not 0
_FIRST_CLASS = np.array([0, 1, 7, 13, 19])  # by the number of decoded elements; the last entry is for 4 or more
_CLASS_PRIOR_ELEMENTS = 20.0
_MIN_FREQUENCY = 8  # of a 0 and of a 1


@dataclasses.dataclass(frozen=True)
class ZeroPrediction:
    """What the model predicts for n elements, with the contexts that `ZeroModel.update` needs again.

    Args:
        zero_frequencies: Int64 (n,), the frequency out of 2**15 at which each element is 0.
        row: Int64 (n,), the row of each element.
        column: Int64 (n,), the column of each element.
        sliced: Int64 (m,), the indices of the m elements whose slices have more than one element. The fields below are
            only for these elements.
        tap: Int64 (m,), the tap.
        slice: Int64 (m,), the slice.
        slice_class: Int64 (m,), the class, numbered through all arrays.
        prior: Float64 (m,), the frequency of a 1 before the correction for the class.
    """

    zero_frequencies: np.ndarray
    row: np.ndarray
    column: np.ndarray
    sliced: np.ndarray
    tap: np.ndarray
    slice: np.ndarray
    slice_class: np.ndarray
    prior: np.ndarray


class ZeroModel:
    """Learns from the elements coded so far how likely others are to be 0.

    The odds of an element are those of its array, times a factor for its row, column and tap, times a correction for
    the class of its slice. All arithmetic is in integers, or in single operations on float64, so that every machine
    gets the same odds.

    Args:
        scan: The elements.
        arrays: Number of arrays.
    """

    def __init__(self, scan: Scan, arrays: int):
        self._scan = scan
        # Number of elements coded so far, and how many of them are not 0.
        self._arrays = np.zeros((2, arrays), np.int64)
        self._rows = np.zeros((2, len(scan.array_of_row)), np.int64)
        self._columns = np.zeros((2, len(scan.array_of_column)), np.int64)
        self._taps = np.zeros((2, len(scan.array_of_tap)), np.int64)
        self._slices = np.zeros((2, scan.slice_count), np.int64)
        self._classes = np.zeros((2, arrays * _CLASSES))
        self._expected = np.zeros(arrays * _CLASSES)  # non-zero elements that the prior expects, times 2**15

    def predict(self, places: np.ndarray) -> ZeroPrediction:
        """Predicts how likely elements are to be 0.

        Args:
            places: Int64 (4, n), the places of elements that are not coded yet, see `Scan`.
        """
        scan = self._scan
        _, row, column, _ = places
        density = self._array_densities()
        array_odds = density / (1.0 - density)
        odds = (array_odds[scan.array_of_row] * self._factors(self._rows, scan.array_of_row)).take(row)
        odds *= self._factors(self._columns, scan.array_of_column).take(column)
        sliced, tap, slice_ = scan.slices(places)
        sliced_odds = odds.take(sliced)
        sliced_odds *= self._factors(self._taps, scan.array_of_tap).take(tap)
        prior = np.rint(sliced_odds / (1.0 + sliced_odds) * TOTAL)
        slice_class = self._slice_classes(slice_)
        slice_class += scan.array_of_tap.take(tap) * _CLASSES
        odds[sliced] = sliced_odds * self._class_corrections().take(slice_class)
        frequency = np.rint(odds / (1.0 + odds) * TOTAL)
        np.minimum(np.maximum(frequency, _MIN_FREQUENCY, out=frequency), TOTAL - _MIN_FREQUENCY, out=frequency)
        return ZeroPrediction(TOTAL - frequency.astype(np.int64), row, column, sliced, tap, slice_, slice_class, prior)

    def _array_densities(self) -> np.ndarray:
        """Returns float64 (arrays,): the share of elements that are not 0."""
        coded, nonzero = self._arrays
        return (nonzero + 0.5) / (coded + 1.0)

    def _factors(self, counts: np.ndarray, array: np.ndarray) -> np.ndarray:
        """Returns the odds of rows, columns or taps, divided by the odds of their arrays.

        Args:
            counts: Int64 (2, groups), elements and non-zero elements of each row, column or tap.
            array: Int64 (groups,), the array of each row, column or tap.
        """
        density = self._array_densities()[array]
        group_density = (counts[1] + _PRIOR_ELEMENTS * density) / (counts[0] + _PRIOR_ELEMENTS)
        return group_density / (1.0 - group_density) / (density / (1.0 - density))

    def _slice_classes(self, slice_: np.ndarray) -> np.ndarray:
        """Returns the class of each slice, by how many of its elements are coded and how many of these are not 0."""
        coded, nonzero = self._slices[0].take(slice_), self._slices[1].take(slice_)
        share = (10 * nonzero + coded) // np.maximum(2 * coded, 1)
        return _FIRST_CLASS.take(coded, mode="clip") + share

    def _class_corrections(self) -> np.ndarray:
        """Returns float64 (arrays * classes,): the actual odds of each class, divided by the odds of the prior."""
        (coded, actual), expected = self._classes, self._expected / TOTAL
        ones = (actual + _CLASS_PRIOR_ELEMENTS) / (expected + _CLASS_PRIOR_ELEMENTS)
        zeros = (coded - actual + _CLASS_PRIOR_ELEMENTS) / (coded - expected + _CLASS_PRIOR_ELEMENTS)
        return ones / zeros

    def update(self, prediction: ZeroPrediction, nonzero: np.ndarray) -> None:
        """Learns from coded elements.

        Args:
            prediction: What `predict` returned for the elements.
            nonzero: Bool (n,), whether each element is not 0.
        """
        ones = np.flatnonzero(nonzero)
        add_counts(self._rows, prediction.row, ones)
        add_counts(self._columns, prediction.column, ones)
        arrays = self._arrays.shape[1]
        self._arrays = np.stack([sum_by_group(self._scan.array_of_row, counts, arrays) for counts in self._rows])
        sliced_ones = np.flatnonzero(nonzero.take(prediction.sliced))
        add_counts(self._taps, prediction.tap, sliced_ones)
        add_counts(self._slices, prediction.slice, sliced_ones)
        add_counts(self._classes, prediction.slice_class, sliced_ones)
        self._expected += np.bincount(prediction.slice_class, prediction.prior, minlength=len(self._expected))
