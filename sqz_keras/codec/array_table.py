"""The table of arrays: one row per array, which says how the array is stored."""

from __future__ import annotations

import dataclasses
import enum
import math

import numpy as np

from sqz_keras.codec import trellis
from sqz_keras.codec.cursor import Cursor, encode_varint
from sqz_keras.codec.errors import CodebookError, TableError
from sqz_keras.codec.types import CodesSpec
from sqz_keras.codec.values import MAX_CODED_ELEMENTS, MAX_CODES


class Kind(enum.IntEnum):
    """How an array is stored."""

    PLANES = 0  # as floats, in byte planes
    CODEBOOK = 1  # as codes of a codebook
    GRID = 2  # as codes of a grid
    SAME = 3  # not at all: equal to the base's array of this name
    CODEBOOK_DELTA = 4  # as CODEBOOK, with the codes as differences from the base's codes
    GRID_DELTA = 5  # as GRID, with the codes as differences from the base's codes
    TRELLIS = 6  # as codes of a grid on a trellis, where 0 is allowed everywhere
    TRELLIS_DENSE = 7  # as TRELLIS, but every integer, 0 included, obeys the trellis
    PLANES_DELTA = 8  # as codes of a grid, whose values are added to the base's values


_HIGHEST_KIND = {1: Kind.GRID_DELTA, 2: Kind.PLANES_DELTA}  # by the file's version


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table, with the name and the shape that the JSON section gives the array.

    Args:
        name: Name of the array.
        shape: Shape of the array.
        kind: How the array is stored.
        low: The lowest code, or 0.
        high: The highest code, or 0.
        difference_ranges: Lowest and highest difference from the base's codes, first for the elements whose code in
            the base is not 0, then for the others. Empty if the codes are not stored as differences.
    """

    name: str
    shape: tuple[int, ...]
    kind: Kind
    low: int = 0
    high: int = 0
    difference_ranges: tuple[tuple[int, int], ...] = ()

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def has_codebook(self) -> bool:
        """Whether the array has a codebook."""
        return self.kind in (Kind.CODEBOOK, Kind.CODEBOOK_DELTA)

    @property
    def codebook_size(self) -> int:
        """Number of values in the codebook; 0 if there is none."""
        return self.high - self.low if self.has_codebook else 0

    @property
    def has_grid(self) -> bool:
        """Whether the array is stored with the step of a grid."""
        return self.kind in (Kind.GRID, Kind.GRID_DELTA, Kind.PLANES_DELTA) or self.has_trellis

    @property
    def has_trellis(self) -> bool:
        """Whether the array is stored as codes on a trellis."""
        return self.kind in (Kind.TRELLIS, Kind.TRELLIS_DENSE)

    @property
    def needs_base(self) -> bool:
        """Whether decoding the array needs the base's array."""
        return self.kind in (Kind.SAME, Kind.CODEBOOK_DELTA, Kind.GRID_DELTA, Kind.PLANES_DELTA)

    @property
    def has_codes(self) -> bool:
        """Whether the array is stored as codes, or as differences of codes."""
        return self.has_codebook or self.has_grid

    def coded_specs(self, base_codes: np.ndarray | None, version: int) -> list[CodesSpec]:
        """Lists the specs of the arrays of codes that a profile codes for this array.

        Args:
            base_codes: Codes of the base's array; used only if the codes are stored as differences.
            version: Version of the file.
        """
        if self.difference_ranges:
            nonzero = base_codes[base_codes != 0].astype(np.int64)
            rows = nonzero - nonzero.min(initial=0) if version > 1 else None
            of_nonzero, of_zero = self.difference_ranges
            return [
                CodesSpec(nonzero.shape, *of_nonzero, rows),
                CodesSpec((self.size - len(nonzero),), *of_zero),
            ]
        return [CodesSpec(self.shape, self.low, self.high)] if self.has_codes else []

    def to_bytes(self) -> bytes:
        """Encodes the row as it is stored in the file."""
        if not self.has_codes:
            return bytes([self.kind])
        ranges = ((self.low, self.high), *self.difference_ranges)
        return bytes([self.kind]) + b"".join(encode_varint(-low) + encode_varint(high) for low, high in ranges)


def read_row(table: Cursor, name: str, shape: tuple[int, ...], version: int) -> Row:
    """Reads and checks the next row of the table.

    Args:
        table: Cursor at the row.
        name: Name of the array.
        shape: Shape of the array.
        version: Version of the file.

    Raises:
        TableError: The kind is unknown, or a range is not allowed.
    """
    start, kind = table.offset, table.uint(1)
    if kind > _HIGHEST_KIND[version]:
        raise TableError(f"Unknown kind {kind} of array", start)
    row = Row(name, shape, Kind(kind))
    if not row.has_codes:
        return row
    range_count = 3 if row.kind in (Kind.CODEBOOK_DELTA, Kind.GRID_DELTA) else 1
    ranges = [(-table.varint(), table.varint()) for _ in range(range_count)]
    if any(high - low >= MAX_CODES for low, high in ranges):
        raise TableError(f"{name}: the range has more than {MAX_CODES} codes", start)
    if row.size > MAX_CODED_ELEMENTS:
        raise TableError(f"{name}: {row.size} elements have codes; at most {MAX_CODED_ELEMENTS} are read", start)
    if row.has_grid and ranges[0] == (0, 0):
        raise TableError(f"{name}: the grid has no values", start)
    if row.has_trellis and not trellis.fits(shape):
        raise TableError(
            f"{name}: a trellis needs at least 2 dimensions and at most {trellis.MAX_FILTER_ELEMENTS} elements of a "
            f"filter, got the shape {shape}",
            start,
        )
    return Row(name, shape, Kind(kind), *ranges[0], tuple(ranges[1:]))


def check_range(flat: np.ndarray, declared: tuple[int, int], row: Row, offset: int) -> None:
    """Raises `CodebookError` unless the lowest and highest codes match the range that the table declares."""
    actual = int(flat.min(initial=0)), int(flat.max(initial=0))
    if actual != declared:
        raise CodebookError(
            f"{row.name}: the table declares codes from {declared[0]} to {declared[1]}, "
            f"the array has {actual[0]} to {actual[1]}",
            offset,
        )


def check_codebook_is_used(flat: np.ndarray, row: Row, offset: int) -> None:
    """Raises `CodebookError` if the array has a codebook but does not use every value in it."""
    if not row.has_codebook:
        return
    used = np.bincount(flat - row.low, minlength=row.high - row.low + 1) > 0
    if not np.delete(used, -row.low).all():
        raise CodebookError(f"{row.name}: a value of the codebook is never used", offset)
