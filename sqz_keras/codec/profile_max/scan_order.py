"""The scan: the order in which the elements of a batch of arrays are coded, and what the models know of their places.

An array is treated as (height, width, rows, columns): the last three are its last three dimensions, or 1 if it has
fewer, and the height is the product of all others. So the rows of a kernel are its input channels and the columns its
output channels. A *tap* is one of the height * width positions of a kernel. A *slice* holds the elements of one row and
one column: a small image of height * width elements. Arrays, rows, columns, taps and slices are numbered consecutively
through all arrays of the batch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np

# Elements are coded in rounds, and the models learn from the earlier rounds. Each element has a key from 0 to 255;
# round r takes the elements whose key is in [ROUND_BOUNDS[r], ROUND_BOUNDS[r + 1]).
ROUND_BOUNDS = (0, 1, 3, 7, 13, 22, 34, 48, 64, 84, 107, 131, 156, 181, 206, 231, 256)
_ROUNDS = len(ROUND_BOUNDS) - 1
# Limits of a batch, which bound the memory of the models.
BATCH_ELEMENTS = 1 << 22
_BATCH_CODES = 1 << 14
_BATCH_ARRAYS = 1 << 10
_GOLDEN_RATIO = np.uint32(2654435769)  # 2**32 over the golden ratio: spreads each round evenly over rows and columns


@dataclasses.dataclass(frozen=True)
class _ArrayScan:
    """The elements of an array.

    Args:
        order: Int32 (n,), the indices of the elements in the array, round by round.
        bounds: Int64 (rounds + 1,), the index in `order` at which each round begins, then the length of `order`.
        dense: Whether the array has no zeros.
        slice_count: Number of slices.
        column_count: Number of columns.
        own_rows: Integers (n,), the row of each element, or None if the row follows from the element's index.
        first: Int64 (4, 1), the place of element 0.
    """

    order: np.ndarray
    bounds: np.ndarray
    dense: bool
    slice_count: int
    column_count: int
    own_rows: np.ndarray | None
    first: np.ndarray

    def write_places(self, turn: int, places: np.ndarray) -> None:
        """Writes the places of the elements of a round."""
        index = self.order[self.bounds[turn] : self.bounds[turn + 1]]
        tap, rest = _divide(index, self.slice_count)
        row, column = _divide(rest, self.column_count)
        if self.own_rows is not None:
            row, column = self.own_rows.take(index), np.zeros_like(index)
        np.add([index, row, column, tap], self.first, out=places)


@dataclasses.dataclass(frozen=True)
class Scan:
    """The elements of a batch.

    *Places* of n elements are int64 (4, n): the index of each element in the batch, its row, its column and its tap.
    The tap is 0 in arrays whose slices have one element, and only there.

    Args:
        arrays: The elements of each array; arrays with zeros come first.
        array_of_row: Int64 (rows,), the array of each row.
        array_of_column: Int64 (columns,), the array of each column.
        array_of_tap: Int64 (taps,), the array of each tap.
        slice_of_row: Int64 (rows,). The slice of an element is this number of its row, plus its column.
        cell_of_tap: Int64 (taps,). The cell of an element is this number of its tap, plus its slice. A cell is an index
            in a buffer that holds all slices with a border of zeros.
        cell_strides: Int64 (taps, 2), the distance in that buffer to the element below and to the element on the right.
        slice_count: Number of slices.
        cell_count: Number of elements of the buffer. The first one belongs to no slice.
    """

    arrays: list[_ArrayScan]
    array_of_row: np.ndarray
    array_of_column: np.ndarray
    array_of_tap: np.ndarray
    slice_of_row: np.ndarray
    cell_of_tap: np.ndarray
    cell_strides: np.ndarray
    slice_count: int
    cell_count: int

    def rounds(self) -> Iterator[tuple[np.ndarray, int]]:
        """Yields the places of each round's elements, and how many are in arrays with zeros; these come first."""
        ends = np.cumsum([np.diff(array.bounds) for array in self.arrays], axis=0)
        of_zeros = ends[[not array.dense for array in self.arrays]].max(axis=0, initial=0)
        buffer = np.empty((4, ends[-1].max()), np.int64)  # one for all rounds: allocating memory takes longer
        for turn in range(_ROUNDS):
            places = buffer[:, : ends[-1, turn]]
            for array, part in zip(self.arrays, np.split(places, ends[:-1, turn], axis=1), strict=True):
                array.write_places(turn, part)
            yield places, of_zeros[turn]

    def slices(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the indices of the elements whose slices have several elements, and their int64 taps and slices."""
        _, row, column, tap = places
        sliced = np.flatnonzero(tap)
        return sliced, tap.take(sliced), self.slice_of_row.take(row.take(sliced)) + column.take(sliced)

    def cells(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns what `slices` does, with the cells of the elements instead of their slices."""
        sliced, tap, slice_ = self.slices(places)
        return sliced, tap, self.cell_of_tap.take(tap) + slice_

    def neighbours(self, tap: np.ndarray, cell: np.ndarray) -> list[np.ndarray]:
        """Returns the cells above, below, left and right of cells with the given taps."""
        down, right = self.cell_strides.take(tap, axis=0).T
        return [cell - down, cell + down, cell - right, cell + right]


def batches(sizes: Sequence[tuple[int, int]]) -> Iterator[slice]:
    """Yields the arrays of each batch: as many as its limits allow, but at least one.

    Args:
        sizes: The number of elements and the number of codes of each array.
    """
    start = elements = codes = 0
    for number, (array_elements, array_codes) in enumerate(sizes):
        elements, codes = elements + array_elements, codes + array_codes
        too_large = elements > BATCH_ELEMENTS or codes > _BATCH_CODES or number - start >= _BATCH_ARRAYS
        if too_large and number > start:
            yield slice(start, number)
            start, elements, codes = number, array_elements, array_codes
    if sizes:
        yield slice(start, len(sizes))


def scan_arrays(
    shapes: Sequence[tuple[int, ...]], dense: Sequence[bool], own_rows: Sequence[np.ndarray | None] = ()
) -> Scan:
    """Lays out the elements of the arrays of a batch, one array after the other.

    Args:
        shapes: Shape of each array.
        dense: Whether each array has no zeros.
        own_rows: `CodesSpec.rows` of each array; empty if no array has any.
    """
    round_of_element = _round_of_elements(max(map(math.prod, shapes)))
    arrays, sizes, slice_of_row = [], [], []
    cell_of_tap, cell_strides = [np.zeros(1, np.int64)], [np.zeros((1, 2), np.int64)]
    start = rows = columns = slices = 0
    taps = cells = 1
    for number, shape in enumerate(shapes):
        if not math.prod(shape):
            shape = (0,)  # its other dimensions would take memory for rows, columns and taps without elements
        shape = (1,) * (4 - len(shape)) + tuple(shape)
        height, (width, row_count, column_count) = math.prod(shape[:-3]), shape[-3:]
        tap_count, slice_count = height * width, row_count * column_count
        order, bounds = _sort_by_round(round_of_element[: tap_count * slice_count])
        rows_of_array = own_rows[number] if own_rows else None
        first = np.array([start, rows, columns, taps if tap_count > 1 else 0])[:, None]
        arrays.append(
            _ArrayScan(order.astype(np.int32), bounds, dense[number], slice_count, column_count, rows_of_array, first)
        )
        if rows_of_array is not None:
            row_count, column_count = int(rows_of_array.max(initial=0)) + 1, 1
        slice_of_row.append(slices - columns + column_count * np.arange(row_count))
        if tap_count > 1:
            strides = np.array([(width + 2) * slice_count, slice_count])
            cell_of_tap.append(cells - slices + (np.stack(_divide(np.arange(tap_count), width), axis=1) + 1) @ strides)
            cell_strides.append(np.broadcast_to(strides, (tap_count, 2)))
            slices, cells = slices + slice_count, cells + (height + 2) * (width + 2) * slice_count
            taps += tap_count
        sizes.append((row_count, column_count, tap_count if tap_count > 1 else 0))
        start, rows, columns = start + len(order), rows + row_count, columns + column_count
    owners = [np.repeat(np.arange(len(shapes)), counts) for counts in zip(*sizes, strict=True)]
    return Scan(
        arrays=sorted(arrays, key=lambda array: array.dense),
        array_of_row=owners[0],
        array_of_column=owners[1],
        array_of_tap=np.append(0, owners[2]),
        slice_of_row=np.concatenate(slice_of_row),
        cell_of_tap=np.concatenate(cell_of_tap),
        cell_strides=np.concatenate(cell_strides),
        slice_count=slices,
        cell_count=cells,
    )


def scan_plane(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Orders the bytes of a plane.

    Args:
        size: Number of bytes.

    Returns:
        Int64 (size,), the indices of the bytes, round by round; and int64 (rounds + 1,), where each round begins among
        them, then their number.
    """
    return _sort_by_round(_round_of_elements(size))


def _round_of_elements(size: int) -> np.ndarray:
    """Returns uint8 (size,): the round of each element of an array."""
    round_of_key = np.repeat(np.arange(_ROUNDS, dtype=np.uint8), np.diff(ROUND_BOUNDS))
    return round_of_key[np.arange(size, dtype=np.uint32) * _GOLDEN_RATIO >> np.uint32(24)]


def _sort_by_round(rounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorts elements by round.

    Args:
        rounds: Uint8 (n,), the round of each element.

    Returns:
        Int64 (n,), the indices of the elements, round by round; and int64 (rounds + 1,), where each round begins among
        them, then their number.
    """
    counts = np.bincount(rounds, minlength=_ROUNDS)
    return np.argsort(rounds, kind="stable"), np.concatenate([[0], np.cumsum(counts)])


def _divide(numbers: np.ndarray, by: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns quotients and remainders in half the time of `np.divmod`. If there are no numbers, `by` may be 0."""
    quotients = numbers // max(by, 1)
    return quotients, numbers - quotients * by
