"""The table of arrays: how each array of a file is stored."""

from __future__ import annotations

import dataclasses
import enum
import math

import numpy as np

from sqz_keras.codec.cursor import Cursor, varint
from sqz_keras.codec.errors import CodebookError, TableError
from sqz_keras.codec.types import Shape
from sqz_keras.codec.values import MAX_CODED, MAX_CODES


class Kind(enum.IntEnum):
    """How an array is stored."""

    PLANES = 0
    CODEBOOK = 1
    GRID = 2
    SAME = 3  # as the base's array of this name
    CODEBOOK_MOVED = 4  # codes less the codes of the base's array of this name
    GRID_MOVED = 5


@dataclasses.dataclass(frozen=True)
class Row:
    """An array's row of the table, with its name and shape.

    Args:
        name: of the array.
        shape: of the array.
        kind: how it is stored.
        low: the lowest code, or 0.
        high: the highest code, or 0.
        moves: of codes less the base's: (lowest, highest) where the base's codes are not 0, and where they are.
    """

    name: str
    shape: tuple[int, ...]
    kind: Kind
    low: int = 0
    high: int = 0
    moves: tuple[tuple[int, int], ...] = ()

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def has_codebook(self) -> bool:
        """Whether a codebook belongs to it."""
        return self.kind in (Kind.CODEBOOK, Kind.CODEBOOK_MOVED)

    @property
    def has_step(self) -> bool:
        """Whether a grid's step belongs to it."""
        return self.kind in (Kind.GRID, Kind.GRID_MOVED)

    def shapes(self, base_codes: np.ndarray | None) -> list[Shape]:
        """The arrays of codes that a profile codes for it.

        Args:
            base_codes: of the base's array, where `moves` are coded.
        """
        if self.moves:
            used = int(np.count_nonzero(base_codes))
            return [Shape((n,), *span) for n, span in zip((used, self.size - used), self.moves, strict=True)]
        return [Shape(self.shape, self.low, self.high)] if self.has_codebook or self.has_step else []

    def to_bytes(self) -> bytes:
        """The row as it stands in the file."""
        if not (self.has_codebook or self.has_step):
            return bytes([self.kind])
        spans = ((self.low, self.high), *self.moves)
        return bytes([self.kind]) + b"".join(varint(-low) + varint(high) for low, high in spans)


def read_row(table: Cursor, name: str, shape: tuple[int, ...]) -> Row:
    """The next row of the table."""
    start, kind = table.offset, table.uint(1)
    if kind > max(Kind):
        raise TableError(f"Unknown kind {kind} of array", start)
    row = Row(name, shape, Kind(kind))
    if not (row.has_codebook or row.has_step):
        return row
    spans = [(-table.varint(), table.varint()) for _ in range(3 if kind >= Kind.CODEBOOK_MOVED else 1)]
    if any(high - low >= MAX_CODES for low, high in spans):
        raise TableError(f"{name}: more than {MAX_CODES} codes", start)
    if row.size > MAX_CODED:
        raise TableError(f"{name}: codes for {row.size} elements; at most {MAX_CODED} are read", start)
    if row.has_step and spans[0] == (0, 0):
        raise TableError(f"{name}: a grid without values", start)
    return Row(name, shape, Kind(kind), *spans[0], tuple(spans[1:]))


def check_used(flat: np.ndarray, span: tuple[int, int], row: Row, offset: int) -> None:
    """Refuses codes whose lowest and highest are not those that the table says."""
    used = int(flat.min(initial=0)), int(flat.max(initial=0))
    if used != span:
        raise CodebookError(f"{row.name}: codes from {span[0]} to {span[1]} are declared, {used} used", offset)


def check_codebook_used(flat: np.ndarray, row: Row, offset: int) -> None:
    """Refuses a codebook of which a value is never used."""
    used = np.bincount(flat - row.low, minlength=row.high - row.low + 1) > 0
    if row.has_codebook and not np.delete(used, -row.low).all():
        raise CodebookError(f"{row.name}: a value of the codebook is never used", offset)
