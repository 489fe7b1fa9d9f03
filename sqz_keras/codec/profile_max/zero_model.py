"""The model of where the zeros are: odds from the array, the row, the column, the place and the pair of an element."""

from __future__ import annotations

import numpy as np

from sqz_keras.codec.profile_max.rans import TOTAL
from sqz_keras.codec.profile_max.scan_order import Places

_SHRINK = 120.0  # elements that a row's own density must outweigh
_CLASSES = 25
_CLASS_SHRINK = 20.0
_LEAST = 8  # of the frequency of a 0 or a 1


class MaskModel:
    """Learns from the elements coded so far how likely others are to be non-zero.

    All arithmetic is in integers, or in single operations on float64, so that every machine finds the same odds.

    Args:
        places: of the elements.
        arrays: number of arrays.
    """

    def __init__(self, places: Places, arrays: int):
        self._places = places
        self._rows = np.zeros((2, len(places.array_of_row)), np.int64)  # elements known, and those that are not zero
        self._columns = np.zeros((2, len(places.array_of_column)), np.int64)
        self._spots = np.zeros((2, len(places.array_of_spot)), np.int64)
        self._arrays = np.zeros((2, arrays), np.int64)
        self._pairs = np.zeros((2, places.pairs), np.int64)
        self._found = np.zeros((2, arrays * _CLASSES))  # elements of each class of pairs, and those that are not zero
        self._expected = np.zeros((2, arrays * _CLASSES))  # the same by the odds without that class

    def zeros(self, elements: np.ndarray) -> np.ndarray:
        """int64: the frequency, of 2**15, at which each element is zero."""
        places = self._places
        known, ones = self._arrays
        density = (ones + 0.5) / (known + 1.0)
        odds = density / (1.0 - density)
        self._row, self._column = places.row.take(elements), places.column.take(elements)
        product = (odds[places.array_of_row] * self._factor(self._rows, places.array_of_row)).take(self._row)
        product *= self._factor(self._columns, places.array_of_column).take(self._column)
        cell = places.cell.take(elements)
        self._imaged = np.flatnonzero(cell)
        imaged = elements.take(self._imaged)
        self._spot, self._pair = places.spot.take(imaged), places.pair.take(imaged)
        part = product.take(self._imaged)
        part *= self._factor(self._spots, places.array_of_spot).take(self._spot)
        self._prior = np.rint(part / (1.0 + part) * TOTAL)
        known, ones = self._pairs[0].take(self._pair), self._pairs[1].take(self._pair)
        share = (10 * ones + known) // np.maximum(2 * known, 1)
        self._class = np.where(known == 0, 0, 6 * np.minimum(known, 4) - 5 + share)
        self._class += places.array_of_spot.take(self._spot) * _CLASSES
        product[self._imaged] = part * self._ratio().take(self._class)
        frequency = np.rint(product / (1.0 + product) * TOTAL)
        np.minimum(np.maximum(frequency, _LEAST, out=frequency), TOTAL - _LEAST, out=frequency)
        return TOTAL - frequency.astype(np.int64)

    def _factor(self, seen: np.ndarray, array: np.ndarray) -> np.ndarray:
        """The odds of each row, column or spot over its array's."""
        density = ((self._arrays[1] + 0.5) / (self._arrays[0] + 1.0))[array]
        shrunk = (seen[1] + _SHRINK * density) / (seen[0] + _SHRINK)
        return shrunk / (1.0 - shrunk) / (density / (1.0 - density))

    def _ratio(self) -> np.ndarray:
        """How much the odds of each class were found to differ from what was expected without it."""
        found, expected = self._found, self._expected / TOTAL
        ones = (found[1] + _CLASS_SHRINK) / (expected[1] + _CLASS_SHRINK)
        zeros = (found[0] - found[1] + _CLASS_SHRINK) / (expected[0] - expected[1] + _CLASS_SHRINK)
        return ones / zeros

    def learn(self, nonzero: np.ndarray) -> None:
        """Takes in what the elements of the last call of `zeros` were."""
        places, ones = self._places, np.flatnonzero(nonzero)
        _tally(self._rows, self._row, ones)
        _tally(self._columns, self._column, ones)
        self._arrays = np.stack([_sums(seen, places.array_of_row, self._arrays.shape[1]) for seen in self._rows])
        ones = np.flatnonzero(nonzero.take(self._imaged))
        _tally(self._spots, self._spot, ones)
        _tally(self._pairs, self._pair, ones)
        _tally(self._found, self._class, ones)
        self._expected[0] += TOTAL * np.bincount(self._class, minlength=self._expected.shape[1])
        self._expected[1] += np.bincount(self._class, self._prior, minlength=self._expected.shape[1])


def _tally(seen: np.ndarray, group: np.ndarray, ones: np.ndarray) -> None:
    """Counts the elements of each group, and those of them at the indices `ones`."""
    seen[0] += np.bincount(group, minlength=seen.shape[1])
    seen[1] += np.bincount(group.take(ones), minlength=seen.shape[1])


def _sums(values: np.ndarray, group: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(group, values, minlength=count).astype(np.int64)
