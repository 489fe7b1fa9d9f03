"""The scan: in which order the elements of a batch of arrays are coded, and what the models know about their places.

An array is seen as (height, width, rows, columns): the last three dimensions, missing ones being 1, and the product of
all others as the height. So the rows of a kernel are its input channels and the columns its output channels. A *tap* is
one of the height * width positions of a kernel. A *slice* is what belongs to one pair of row and column: a small image
of height * width elements. Arrays, rows, columns, taps and slices are numbered through all arrays of the batch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np

# Elements are coded in rounds, and the models learn from the rounds before. Each element has a key from 0 to 255;
# round r takes the elements whose key is in [ROUND_BOUNDS[r], ROUND_BOUNDS[r + 1]).
ROUND_BOUNDS = (0, 1, 3, 7, 13, 22, 34, 48, 64, 84, 107, 131, 156, 181, 206, 231, 256)
# Limits of a batch, which bound the memory of the models.
BATCH_ELEMENTS = 1 << 22
_BATCH_CODES = 1 << 14
_BATCH_ARRAYS = 1 << 10
_GOLDEN_RATIO = np.uint32(2654435769)  # 2**32 over the golden ratio: spreads each round evenly over rows and columns


@dataclasses.dataclass(frozen=True)
class Scan:
    """The n elements of a batch, and the order in which they are coded.

    Args:
        array: Int32 (n,), the array of each element.
        line: Int64 (n,), its row, plus 2**32 times its column; see `split_line`.
        tap: Int32 (n,), its tap.
        slice: Int32 (n,), its slice; 0 in arrays whose slices have one element.
        cell: Int32 (n,), its index in a buffer that holds all slices with a border of zeros; 0 in arrays whose slices
            have one element.
        cell_strides: Int64 (arrays, 2), the distance in that buffer to the element below and to the element on the
            right.
        array_of_row: Int64 (rows,), the array of each row.
        array_of_column: Int64 (columns,), the array of each column.
        array_of_tap: Int64 (taps,), the array of each tap.
        slice_count: Number of slices, with the unused slice 0.
        cell_count: Number of elements of the buffer.
        order: Int64 (n,), the elements in the order of their rounds. Within a round the elements of arrays with zeros
            come first.
        bounds: Int64 (2 * rounds + 1,), the index in `order` at which each round begins, and at which its elements of
            arrays without zeros begin.
    """

    array: np.ndarray
    line: np.ndarray
    tap: np.ndarray
    slice: np.ndarray
    cell: np.ndarray
    cell_strides: np.ndarray
    array_of_row: np.ndarray
    array_of_column: np.ndarray
    array_of_tap: np.ndarray
    slice_count: int
    cell_count: int
    order: np.ndarray
    bounds: np.ndarray


def split_line(line: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns int64 (n,), the rows, and int64 (n,), the columns that `Scan.line` holds. One look-up gives both."""
    return line & 0xFFFFFFFF, line >> 32


def batches(sizes: Sequence[tuple[int, int]]) -> Iterator[slice]:
    """Yields the arrays of each batch: as many as its limits allow, but at least one.

    Args:
        sizes: The elements and the codes of each array.
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
        own_rows: The rows of the elements of each array, see `CodesSpec`; empty if no array has any.
    """
    total = sum(map(math.prod, shapes))
    fields = {name: np.empty(total, np.int32) for name in ("array", "tap", "slice", "cell")}
    fields["line"] = np.empty(total, np.int64)
    cell_strides, sizes, keys = [], [], []
    start = rows = columns = taps = 0
    slices = cells = 1
    for number, shape in enumerate(shapes):
        shape = (1,) * (4 - len(shape)) + tuple(shape)
        height, (width, row_count, column_count) = math.prod(shape[:-3]), shape[-3:]
        tap_count, slice_count = height * width, row_count * column_count
        places = {
            "array": np.full((1, 1, 1), number),
            "line": (rows + np.arange(row_count)[:, None]) + (columns + np.arange(column_count) << 32),
            "tap": taps + np.arange(tap_count)[:, None, None],
            "slice": np.zeros((1, 1, 1)),
            "cell": np.zeros((1, 1, 1)),
        }
        strides = (0, 0)
        if tap_count > 1:
            index = np.arange(slice_count).reshape(1, row_count, column_count)
            strides = ((width + 2) * slice_count, slice_count)
            down, right = np.divmod(np.arange(tap_count), width)
            corner = cells + (down + 1) * strides[0] + (right + 1) * strides[1]
            places |= {"slice": slices + index, "cell": corner[:, None, None] + index}
            slices += slice_count
            cells += (height + 2) * strides[0]
        end = start + tap_count * slice_count
        for name, values in places.items():
            fields[name][start:end].reshape(tap_count, row_count, column_count)[...] = values
        if own_rows and own_rows[number] is not None:
            fields["line"][start:end] = (columns << 32) + rows + own_rows[number]
            row_count, column_count = int(own_rows[number].max(initial=0)) + 1, 1
        start = end
        keys.append(2 * _round_of_elements(tap_count * slice_count) + bool(dense[number]))
        cell_strides.append(strides)
        sizes.append((row_count, column_count, tap_count))
        rows, columns, taps = rows + row_count, columns + column_count, taps + tap_count
    order, bounds = _sort_by_round(np.concatenate(keys))
    owners = [np.repeat(np.arange(len(shapes)), counts) for counts in zip(*sizes, strict=True)]
    return Scan(
        **fields,
        cell_strides=np.array(cell_strides),
        array_of_row=owners[0],
        array_of_column=owners[1],
        array_of_tap=owners[2],
        slice_count=slices,
        cell_count=cells,
        order=order,
        bounds=bounds,
    )


def scan_plane(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Orders the bytes of a plane.

    Args:
        size: Number of bytes.

    Returns:
        Int64 (size,), the bytes in the order of their rounds, and int64 (rounds + 1,), the index in it at which each
        round begins.
    """
    order, bounds = _sort_by_round(2 * _round_of_elements(size))
    return order, bounds[::2]


def _round_of_elements(size: int) -> np.ndarray:
    """Returns uint8 (size,): the round of each element of an array."""
    round_of_key = np.repeat(np.arange(len(ROUND_BOUNDS) - 1, dtype=np.uint8), np.diff(ROUND_BOUNDS))
    return round_of_key[np.arange(size, dtype=np.uint32) * _GOLDEN_RATIO >> np.uint32(24)]


def _sort_by_round(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorts elements by round, those of arrays with zeros first.

    Args:
        keys: Uint8 (n,), twice the round of each element, plus 1 if its array has no zeros.

    Returns:
        Int64 (n,), the sorted elements, and int64 (2 * rounds + 1,), the index in it at which each key begins.
    """
    counts = np.bincount(keys, minlength=2 * len(ROUND_BOUNDS) - 2)
    return np.argsort(keys, kind="stable"), np.concatenate([[0], np.cumsum(counts)])
