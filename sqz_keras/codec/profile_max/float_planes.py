"""The context model of version 2 for the planes of floats: their bytes depend on the array, the place and the exponent.

- Plane 0, the exponents: the contexts of each array are the largest exponent among the neighbours in the slice.
- Planes 1 and 2: the contexts are the exponents.
- Plane 3, which contains the sign: the contexts of each array are the sum of the neighbours' signs.

All arithmetic is in integers, so that every machine gets the same frequencies.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from sqz_keras.codec.profile_max.rans import (
    Decoder,
    Encoder,
    FrequencyTables,
    frequency_tables,
    spent_bits,
    symbol_intervals,
)
from sqz_keras.codec.profile_max.scan_order import Scan, batches, scan_arrays

MAX_ELEMENTS = 1 << 22  # limit for the elements of an array whose planes are modelled
BITMAP_SIZE = 32  # bytes that say which symbols occur in a plane
_NEAR_EXPONENTS = 16  # contexts of each array in plane 0
_NEAR_SIGNS = 9  # contexts of each array in plane 3: sums from -4 to 4
_COUNT_BITS = 10
_PRIOR_BYTES = 512  # weight of a group's counts in the counts of a context


def to_bitmap(plane: np.ndarray) -> bytes:
    """Returns 256 bits; bit s says whether the byte s occurs in a plane."""
    return np.packbits(np.bincount(plane, minlength=256) > 0, bitorder="little").tobytes()


def from_bitmap(bitmap: bytes) -> np.ndarray:
    """Returns the int64 bytes that occur in a plane, in ascending order."""
    return np.flatnonzero(np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little"))


class _Counts:
    """Counts the symbols of each context and of each group of contexts. A context falls back on its group's counts.

    Args:
        group: Int64 (contexts,), the group of each context.
        symbols: Number of symbols.
    """

    def __init__(self, group: np.ndarray, symbols: int):
        self._group = group
        self._counts = np.zeros((len(group), symbols), np.int64)
        self._group_counts = np.zeros((int(group.max()) + 1, symbols), np.int64)

    def tables(self, contexts: np.ndarray) -> FrequencyTables:
        """Makes the frequency tables of the given contexts."""
        prior = 4 * self._group_counts + 1
        prior = (_PRIOR_BYTES << _COUNT_BITS) * prior // prior.sum(axis=1, keepdims=True)
        weights = (self._counts[contexts] << _COUNT_BITS) + prior[self._group[contexts]]
        return frequency_tables([(weights, np.arange(1, weights.shape[1] + 1))])

    def update(self, context: np.ndarray, symbols: np.ndarray) -> None:
        """Counts symbols, given the context of each."""
        shape = self._counts.shape
        new = np.bincount(context * shape[1] + symbols, minlength=self._counts.size).reshape(shape)
        self._counts += new
        np.add.at(self._group_counts, self._group, new)


class FloatPlanes:
    """Codes the planes of floats.

    Args:
        shapes: Shape of each array that is stored as floats.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]]):
        self._shapes = shapes

    @property
    def can_be_modelled(self) -> bool:
        """Whether there are any floats, and no array has too many."""
        sizes = [math.prod(shape) for shape in self._shapes]
        return sum(sizes) > 0 and max(sizes) <= MAX_ELEMENTS

    @functools.cached_property
    def _batches(self) -> list[tuple[slice, int, Scan]]:
        """For each batch of arrays: its part of the plane, the number of its arrays, and their elements."""
        scans, start = [], 0
        for batch in batches([(math.prod(shape), 0) for shape in self._shapes]):
            shapes = self._shapes[batch]
            size = sum(map(math.prod, shapes))
            scans.append((slice(start, start + size), len(shapes), scan_arrays(shapes, [False] * len(shapes))))
            start += size
        return scans

    def code(
        self,
        coder: Encoder | Decoder,
        number: int,
        used: np.ndarray,
        exponents: np.ndarray | None,
        bytes_to_encode: np.ndarray | None = None,
        spent: np.ndarray | None = None,
    ) -> np.ndarray:
        """Codes a plane.

        Args:
            coder: An encoder or a decoder.
            number: Number of the plane, 0 to 3.
            used: The bytes that occur in the plane, in ascending order.
            exponents: Uint8 (n,), plane 0; only for planes 1 and 2.
            bytes_to_encode: Uint8 (n,), the plane, for an encoder.
            spent: Float64 (1,), to which the bits of the plane are added, for an encoder.

        Returns:
            Uint8 (n,), the plane.
        """
        encoding = bytes_to_encode is not None
        plane = bytes_to_encode if encoding else np.zeros(sum(map(math.prod, self._shapes)), np.uint8)
        symbol_of_byte = np.zeros(256, np.int64)
        symbol_of_byte[used] = np.arange(len(used))
        for batch, arrays, scan in self._batches:
            if number == 0:
                contexts = _NearExponents(scan, arrays, highest=int(used[-1]))
            elif number == 3:
                contexts = _NearSigns(scan, arrays)
            else:
                contexts = _OwnExponents(exponents[batch])
            counts, values = _Counts(contexts.group, len(used)), plane[batch]
            for places, _ in scan.rounds():
                elements = places[0]
                if len(elements) == 0:
                    continue
                context = contexts.of(places)
                in_use = np.bincount(context, minlength=len(contexts.group)) > 0
                tables = counts.tables(np.flatnonzero(in_use))
                table_of_element = (np.cumsum(in_use) - 1).take(context)
                symbols_to_encode = symbol_of_byte.take(values.take(elements)) if encoding else None
                symbols = coder.code_symbols(tables, table_of_element, symbols_to_encode)
                if spent is not None:
                    spent += spent_bits(symbol_intervals(tables, table_of_element, symbols)[1]).sum()
                counts.update(context, symbols)
                new = used.take(symbols).astype(np.uint8)
                values[elements] = new
                contexts.update(new)
        return plane


class _NearExponents:
    """Contexts given by the array and the largest exponent of the known neighbours.

    Args:
        scan: The elements of a batch.
        arrays: Number of arrays of the batch.
        highest: The highest byte of the plane.
    """

    def __init__(self, scan: Scan, arrays: int, highest: int):
        self._scan, self._highest = scan, highest
        self._cells = np.zeros(scan.cell_count, np.uint8)
        self.group = np.repeat(np.arange(arrays), _NEAR_EXPONENTS)

    def of(self, places: np.ndarray) -> np.ndarray:
        """Returns int64 (n,), the contexts of the elements at int64 (4, n) places (see `Scan`)."""
        context = self._scan.array_of_row.take(places[1]) * _NEAR_EXPONENTS
        self._sliced, self._cell, around = _neighbours(self._scan, places, self._cells)
        largest = np.maximum.reduce(around).astype(np.int64)
        context[self._sliced] += np.where(largest > 0, 1 + np.minimum(self._highest - largest, _NEAR_EXPONENTS - 2), 0)
        return context

    def update(self, new: np.ndarray) -> None:
        """Learns the bytes of the elements whose contexts were requested last."""
        self._cells[self._cell] = new.take(self._sliced)


class _NearSigns:
    """Contexts given by the array and the sum of the signs of the known neighbours.

    Args:
        scan: The elements of a batch.
        arrays: Number of arrays of the batch.
    """

    def __init__(self, scan: Scan, arrays: int):
        self._scan = scan
        self._cells = np.zeros(scan.cell_count, np.int8)
        self.group = np.tile(np.arange(_NEAR_SIGNS), arrays)

    def of(self, places: np.ndarray) -> np.ndarray:
        """Returns int64 (n,), the contexts of the elements at int64 (4, n) places (see `Scan`)."""
        context = self._scan.array_of_row.take(places[1]) * _NEAR_SIGNS + _NEAR_SIGNS // 2
        self._sliced, self._cell, around = _neighbours(self._scan, places, self._cells)
        context[self._sliced] += sum(around)
        return context

    def update(self, new: np.ndarray) -> None:
        """Learns the bytes of the elements whose contexts were requested last."""
        self._cells[self._cell] = 1 - 2 * (new.take(self._sliced) & 1).astype(np.int8)


class _OwnExponents:
    """Contexts given by the exponents of the elements themselves.

    Args:
        exponents: Uint8 (n,), the exponents of a batch.
    """

    def __init__(self, exponents: np.ndarray):
        self._exponents = exponents
        self.group = np.zeros(256, np.int64)

    def of(self, places: np.ndarray) -> np.ndarray:
        """Returns int64 (n,), the contexts of the elements at int64 (4, n) places (see `Scan`)."""
        return self._exponents.take(places[0]).astype(np.int64)

    def update(self, new: np.ndarray) -> None:
        """Does nothing: all exponents are known already."""


def _neighbours(scan: Scan, places: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Finds the neighbours of elements above, below, left and right in their slices.

    Args:
        scan: The elements of a batch.
        places: Int64 (4, n), places of elements.
        cells: What is known about each cell.

    Returns:
        The indices of the elements whose slices have more than one element, their cells, and what is known about the
        four neighbours of each.
    """
    sliced, tap, cell = scan.cells(places)
    return sliced, cell, [cells.take(neighbour) for neighbour in scan.neighbours(tap, cell)]
