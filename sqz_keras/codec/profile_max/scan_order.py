"""Where each element of a batch of arrays lies: its array, row, column, pair and neighbours, and when it is coded.

An array of shape (..., height, width, rows, columns) is seen so, with missing dimensions 1 and all before the width
taken together as the height: a kernel's rows are its input channels, its columns its output channels, and the elements
of a *pair* of both are a small image, whose places are *spots*. Everything is numbered through all arrays.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

# Elements are coded in rounds, so that each round's model learns from the rounds before: round r takes the elements
# whose key lies in [ROUNDS[r], ROUNDS[r + 1]).
ROUNDS = (0, 1, 3, 7, 13, 22, 34, 48, 64, 84, 107, 131, 156, 181, 206, 231, 256)
_GOLDEN = np.uint32(2654435769)  # 2**32 over the golden ratio: spreads each round evenly over rows and columns


@dataclasses.dataclass(frozen=True)
class Places:
    """The elements of a batch.

    Args:
        array: (n,) the array that each element belongs to.
        row: (n,) its row.
        column: (n,) its column.
        spot: (n,) its place in the image of its pair.
        pair: (n,) its pair; 0 where images have one element.
        cell: (n,) its place in a buffer that holds all images with a border of zeros; 0 where images have one.
        strides: (arrays, 2) distances in that buffer to the neighbour below and the one to the right.
        array_of_row: (rows,) the array of each row; likewise the columns and the spots.
        array_of_column: (columns,).
        array_of_spot: (spots,).
        pairs: number of pairs, with the unused pair 0.
        cells: size of that buffer.
        order: (n,) the elements by their rounds, in each round those of arrays with zeros first.
        bounds: (2 * rounds + 1,) where in `order` each round begins, and where its elements without zeros do.
    """

    array: np.ndarray
    row: np.ndarray
    column: np.ndarray
    spot: np.ndarray
    pair: np.ndarray
    cell: np.ndarray
    strides: np.ndarray
    array_of_row: np.ndarray
    array_of_column: np.ndarray
    array_of_spot: np.ndarray
    pairs: int
    cells: int
    order: np.ndarray
    bounds: np.ndarray


def places(shapes: Sequence[tuple[int, ...]], dense: Sequence[bool]) -> Places:
    """The places of all elements of arrays of these shapes, one behind the other.

    Args:
        shapes: of the arrays.
        dense: whether the array has no zeros.
    """
    fields: dict[str, list] = {name: [] for name in ("array", "row", "column", "spot", "pair", "cell", "turn")}
    strides, counts = [], []
    rows = columns = spots = 0
    pairs = cells = 1
    for number, shape in enumerate(shapes):
        shape = (1,) * (4 - len(shape)) + tuple(shape)
        height, (width, depth, filters) = math.prod(shape[:-3]), shape[-3:]
        size, full = height * width, (height * width, depth, filters)
        spread = {
            "array": np.full((1, 1, 1), number),
            "row": rows + np.arange(depth)[None, :, None],
            "column": columns + np.arange(filters)[None, None, :],
            "spot": spots + np.arange(size)[:, None, None],
            "pair": np.zeros((1, 1, 1)),
            "cell": np.zeros((1, 1, 1)),
        }
        stride = (0, 0)
        if size > 1:
            pair = np.arange(depth * filters).reshape(1, depth, filters)
            stride = ((width + 2) * depth * filters, depth * filters)
            down, right = np.divmod(np.arange(size), width)
            corner = cells + (down + 1) * stride[0] + (right + 1) * stride[1]
            spread |= {"pair": pairs + pair, "cell": corner[:, None, None] + pair}
            pairs += depth * filters
            cells += (height + 2) * stride[0]
        for name, values in spread.items():
            fields[name].append(np.broadcast_to(values.astype(np.int32), full).ravel())
        fields["turn"].append(2 * _rounds(math.prod(full)) + bool(dense[number]))
        strides.append(stride)
        counts.append((depth, filters, size))
        rows, columns, spots = rows + depth, columns + filters, spots + size
    joined = {name: np.concatenate(values) for name, values in fields.items()}
    order, bounds = _sorted(joined.pop("turn"))
    of_row, of_column, of_spot = (np.repeat(np.arange(len(shapes)), each) for each in zip(*counts, strict=True))
    return Places(
        **joined,
        strides=np.array(strides),
        array_of_row=of_row,
        array_of_column=of_column,
        array_of_spot=of_spot,
        pairs=pairs,
        cells=cells,
        order=order,
        bounds=bounds,
    )


def rounds(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The order in which `size` elements of one array are coded, and where in it each round begins."""
    order, bounds = _sorted(2 * _rounds(size))
    return order, bounds[::2]


def _rounds(size: int) -> np.ndarray:
    """uint8: the round of each element of an array."""
    round_of_key = np.repeat(np.arange(len(ROUNDS) - 1, dtype=np.uint8), np.diff(ROUNDS))
    return round_of_key[np.arange(size, dtype=np.uint32) * _GOLDEN >> np.uint32(24)]


def _sorted(turns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    counts = np.bincount(turns, minlength=2 * len(ROUNDS) - 2)
    return np.argsort(turns, kind="stable"), np.concatenate([[0], np.cumsum(counts)])
