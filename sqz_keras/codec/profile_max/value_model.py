"""The context model of the non-zero codes.

The probability of a code starts from how often it occurs in its array, and is corrected by two contexts of the element:

- *scale*, from the magnitudes in the element's row and column. Its buckets order the codes by magnitude, and all arrays
  share its counts.
- *sign*, from the four neighbours in the element's slice, or from its row and column if the slice has one element. Its
  buckets order the codes by value, and each array has counts of its own.

A correction compares how often the codes of a context were in a bucket with how often the model expected them there.
All arithmetic is in integers, so that every machine gets the same frequencies.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from sqz_keras.codec.profile_max.code_counts import BUCKETS, SHARE_BITS, Buckets, CodeCounts
from sqz_keras.codec.profile_max.groups import sum_by_group
from sqz_keras.codec.profile_max.rans import FrequencyTables, frequency_tables
from sqz_keras.codec.profile_max.scan_order import Scan

_PRIOR_CODES = 40  # weight of a correction of 1 in the correction of a bucket
_SCALES, _SIGNS = 5, 9  # contexts
# The context of scale for each magnitude from 0 to 308, in 256ths of the array's mean magnitude, and the context of
# sign for each sum from -25 to 24, in 8ths of it. Values beyond have the context of the nearest entry. A table is
# faster than a search.
_SCALE_OF = np.searchsorted([210, 241, 271, 307], np.arange(309))
_LEAST_SIGN = -25
_SIGN_OF = np.searchsorted([-24, -12, -4, 0, 1, 4, 12, 24], np.arange(_LEAST_SIGN, 25), "right")


@dataclasses.dataclass(frozen=True)
class _TableContexts:
    """The contexts of the frequency tables of a round.

    Args:
        array: Int64 (tables,), the array of each table.
        scale: Int64 (tables,), the context of scale of each table.
        sign: Int64 (tables,), the context of sign of each table, numbered through all arrays.
        elements: Int64 (tables,), the number of elements that use each table.
        scale_buckets: The buckets of the contexts of scale.
        sign_buckets: The buckets of the contexts of sign.
    """

    array: np.ndarray
    scale: np.ndarray
    sign: np.ndarray
    elements: np.ndarray
    scale_buckets: Buckets
    sign_buckets: Buckets


@dataclasses.dataclass(frozen=True)
class ValuePrediction:
    """What the model predicts for n elements, with the contexts that `ValueModel.update` needs again.

    Args:
        places: Int64 (4, n), the places of the elements, sorted by table, see `Scan`.
        array: Int64 (n,), the array of each element.
        cell: Int64 (n,), its cell, or 0 if its slice has one element.
        lowest: Int64 (n,), the lowest code of its array. The symbol of a code is the code minus the lowest.
        table_of_element: Int64 (n,), its table.
        tables: Frequencies of the symbols.
        contexts: Contexts of the tables.
    """

    places: np.ndarray
    array: np.ndarray
    cell: np.ndarray
    lowest: np.ndarray
    table_of_element: np.ndarray
    tables: FrequencyTables
    contexts: _TableContexts


class _BucketCounts:
    """How often the codes of each context were in each bucket, and how often the model expected them there.

    Args:
        contexts: Number of contexts.
    """

    def __init__(self, contexts: int):
        self._actual = np.zeros(contexts * BUCKETS, np.int64)
        self._expected = np.zeros(contexts * BUCKETS, np.int64)  # times 2**12

    def corrections(self) -> np.ndarray:
        """Returns int64 (contexts * buckets,): actual over expected counts, times 2**12, between 1/16 and 16."""
        prior = _PRIOR_CODES << SHARE_BITS
        ratio = (self._actual + _PRIOR_CODES << 2 * SHARE_BITS) // (self._expected + prior)
        return np.clip(ratio, 1 << SHARE_BITS - 4, 1 << SHARE_BITS + 4)

    def update(self, context: np.ndarray, bucket: np.ndarray, table_context: np.ndarray, expected: np.ndarray) -> None:
        """Adds the codes of a round.

        Args:
            context: Int64 (n,), the context of each element.
            bucket: Int64 (n,), the bucket of its code.
            table_context: Int64 (tables,), the context of each table.
            expected: Int64 (tables, buckets), the expected counts of the elements of each table, times 2**12.
        """
        size = len(self._actual)
        self._actual += np.bincount(context * BUCKETS + bucket, minlength=size)
        index = table_context[:, None] * BUCKETS + np.arange(BUCKETS)
        self._expected += sum_by_group(index.ravel(), expected.ravel(), size)


class ValueModel:
    """Learns from the codes so far how likely the next ones are.

    Args:
        scan: The elements.
        ranges: The lowest and the highest code of each array; at least one of them is not 0.
    """

    def __init__(self, scan: Scan, ranges: Sequence[tuple[int, int]]):
        self._scan = scan
        self._codes = CodeCounts(ranges)
        # Number of non-zero codes so far, the sum of their magnitudes, and their sum.
        self._arrays = np.zeros((3, len(ranges)), np.int64)
        self._rows = np.zeros((3, len(scan.array_of_row)), np.int64)
        self._columns = np.zeros((3, len(scan.array_of_column)), np.int64)
        self._cells = np.zeros(scan.cell_count, np.int16)  # the codes so far
        self._scale_counts = _BucketCounts(_SCALES)
        self._sign_counts = _BucketCounts(len(ranges) * _SIGNS)

    def predict(self, places: np.ndarray) -> ValuePrediction:
        """Predicts the codes of elements.

        Args:
            places: Int64 (4, n), the places of elements that are not 0 and not coded yet.
        """
        scan = self._scan
        _, row, column, _ = places
        array = scan.array_of_row.take(row)
        key = (array * _SCALES + self._scale_contexts(row, column)) * _SIGNS
        sliced, tap, cell = scan.cells(places)
        neighbours = sum(self._cells.take(neighbour) for neighbour in scan.neighbours(tap, cell))
        key += self._sign_contexts(row, column, array, sliced, neighbours)
        cell_of_element = np.zeros(len(key), np.int64)
        cell_of_element[sliced] = cell
        elements_of_key = np.bincount(key)
        used_keys = np.flatnonzero(elements_of_key)
        elements_of_table = elements_of_key[used_keys]
        tables, contexts = self._tables(used_keys, elements_of_table)
        order = np.argsort(key.astype(np.uint16), kind="stable")
        array = array.take(order)
        return ValuePrediction(
            places=places.take(order, axis=1),
            array=array,
            cell=cell_of_element.take(order),
            lowest=self._codes.low.take(array),
            table_of_element=np.repeat(np.arange(len(used_keys)), elements_of_table),
            tables=tables,
            contexts=contexts,
        )

    def _tables(self, keys: np.ndarray, elements: np.ndarray) -> tuple[FrequencyTables, _TableContexts]:
        """Makes the frequency tables of the given contexts.

        Args:
            keys: Int64 (tables,), (array * scales + context of scale) * signs + context of sign.
            elements: Int64 (tables,), the number of elements that use each table.
        """
        codes = self._codes
        base = codes.weights()
        array_weights = np.add.reduceat(base, codes.first)
        array, rest = np.divmod(keys, _SCALES * _SIGNS)
        scale, sign = np.divmod(rest, _SIGNS)
        contexts = _TableContexts(
            array=array,
            scale=scale,
            sign=array * _SIGNS + sign,
            elements=elements,
            scale_buckets=codes.buckets(base, array_weights, codes.by_magnitude),
            sign_buckets=codes.buckets(base, array_weights, codes.by_value),
        )
        blocks = self._blocks((base << 20) // array_weights[codes.array] + codes.possible, keys, contexts)
        return frequency_tables(blocks), contexts

    def _blocks(
        self, shares: np.ndarray, keys: np.ndarray, contexts: _TableContexts
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the weights of the tables of each array, and how many symbols up to and including each can occur.

        Args:
            shares: Int64 (codes,), the share of each code in the base weights of its array, times 2**20.
            keys: Int64 (tables,), the contexts of each table, see `_tables`.
            contexts: The same contexts, as separate arrays.
        """
        codes = self._codes
        scales = self._scale_counts.corrections().reshape(_SCALES, BUCKETS)
        by_scale = shares * scales.take(contexts.scale_buckets.bucket, axis=1) >> 6
        first_bucket = BUCKETS * (codes.array * _SIGNS + np.arange(_SIGNS)[:, None])
        by_sign = self._sign_counts.corrections().take(first_bucket + contexts.sign_buckets.bucket)
        bounds = np.searchsorted(contexts.array, np.arange(len(codes.first) + 1))
        for number, (begin, end) in enumerate(itertools.pairwise(bounds)):
            if begin == end:
                continue
            part = slice(codes.first[number], codes.first[number] + codes.sizes[number])
            weights = by_scale[:, part].take(contexts.scale[begin:end], axis=0)
            weights *= by_sign[:, part].take(keys[begin:end] % _SIGNS, axis=0)
            yield weights, codes.reserved[part]

    def _scale_contexts(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Returns int64 (n,), contexts from the mean magnitudes of row and column, relative to that of the array."""
        count, magnitude = self._arrays[0], np.maximum(self._arrays[1], 1)
        product = 1
        for (line_count, line_magnitude, _), owner, line in self._lines(row, column):
            numerator = line_magnitude * count[owner] + 20 * magnitude[owner] << 8
            product = product * (numerator // ((line_count + 20) * magnitude[owner])).take(line)
        return _SCALE_OF.take(product >> 8, mode="clip")

    def _sign_contexts(
        self, row: np.ndarray, column: np.ndarray, array: np.ndarray, sliced: np.ndarray, neighbours: np.ndarray
    ) -> np.ndarray:
        """Returns int64 (n,), contexts from the neighbours' sum, or from how row and column differ from the array."""
        count, magnitude, total = self._arrays
        tilt = np.zeros(len(array), np.int64)
        for (line_count, _, line_total), owner, line in self._lines(row, column):
            excess = 256 * (line_total * count[owner] - line_count * total[owner])
            tilt += (excess // (np.maximum(count[owner], 1) * (line_count + 30))).take(line)
        tilt[sliced] = neighbours.astype(np.int64) << 6
        tilt *= count.take(array)
        tilt //= (8 * np.maximum(magnitude, 1)).take(array)
        return _SIGN_OF.take(tilt - _LEAST_SIGN, mode="clip")

    def _lines(self, row: np.ndarray, column: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yields for rows, then for columns: their sums, the array of each, and the one that each element is in."""
        yield self._rows, self._scan.array_of_row, row
        yield self._columns, self._scan.array_of_column, column

    def update(self, prediction: ValuePrediction, codes: np.ndarray) -> None:
        """Learns from coded elements.

        Args:
            prediction: What `predict` returned for the elements.
            codes: Integers (n,), the code at each of `prediction.places`; none is 0.
        """
        index = self._codes.index(prediction.array, codes)
        self._codes.update(index)
        contexts = prediction.contexts
        for counts, table_context, buckets in (
            (self._scale_counts, contexts.scale, contexts.scale_buckets),
            (self._sign_counts, contexts.sign, contexts.sign_buckets),
        ):
            expected = contexts.elements[:, None] * buckets.share[contexts.array]
            context = table_context[prediction.table_of_element]
            counts.update(context, buckets.bucket[index], table_context, expected)
        _, row, column, _ = prediction.places
        for sums, line in ((self._rows, row), (self._columns, column)):
            sums[0] += np.bincount(line, minlength=sums.shape[1])
            sums[1] += sum_by_group(line, np.abs(codes), sums.shape[1])
            sums[2] += sum_by_group(line, codes, sums.shape[1])
        arrays = self._arrays.shape[1]
        self._arrays = np.stack([sum_by_group(self._scan.array_of_row, sums, arrays) for sums in self._rows])
        self._cells[prediction.cell] = codes
        self._cells[0] = 0  # the cell of all elements without neighbours
