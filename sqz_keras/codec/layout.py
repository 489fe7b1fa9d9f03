"""What lies where in a `.sqz` file."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from sqz_keras.codec import container
from sqz_keras.codec.array_table import Kind
from sqz_keras.codec.files import read_parts


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of the file.

    Args:
        name: its tag.
        offset: byte at which it begins.
        bytes: its size with its own tag, length and checksum.
    """

    name: str
    offset: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class ArrayLayout:
    """An array, and what it costs.

    Args:
        name: of the array.
        shape: of the array.
        kind: "planes", "codebook", "grid", "same", "codebook_moved" or "grid_moved".
        density: share of elements that are not 0.
        distinct: number of distinct values that are not 0.
        bits: of a code that could tell these values and 0 apart, at a fixed length.
        bytes: by part: "codebook", "positions", "codes" and "raw". Parts share sections and bytes, so these are
            fractions; tables and checksums are in the sections' sizes only.
        entropy: bytes at the zero-order entropy, of "positions" and "codes".
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    density: float
    distinct: int
    bits: int
    bytes: dict[str, float]
    entropy: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Layout:
    """What `describe` finds.

    Args:
        profile: "max" or "paper".
        bytes: of the whole file.
        sections: in their order; the file's fixed header of 16 bytes lies before them.
        arrays: in their order.
    """

    profile: str
    bytes: int
    sections: tuple[Section, ...]
    arrays: tuple[ArrayLayout, ...]


def describe(data: bytes, base: bytes | None = None) -> Layout:
    """What lies where in a `.sqz` file, and what each array costs.

    Args:
        data: the whole file.
        base: the file that it is a delta against.

    Raises:
        SqzError: as `decode` does.
    """
    profile, cursors = container.read(data)
    sections = tuple(
        Section(tag, cursor.offset - container.SECTION_HEAD, cursor.end - cursor.offset + container.SECTION_HEAD)
        for tag, cursor in cursors.items()
    )
    parts = read_parts(data, base, measure=True)
    floats = sum(row.size for row in parts.rows if row.kind == Kind.PLANES)
    values = sum(row.high - row.low for row in parts.rows if row.has_codebook)
    share_raw = sum(parts.bits.planes[:4]) / 8 / max(floats, 1)
    share_codebook = sum(parts.bits.planes[4:]) / 8 / max(values, 1)
    coded = zip(parts.bits.codes, parts.bits.positions, strict=True)
    arrays = []
    for row, array in zip(parts.rows, parts.arrays, strict=True):
        spent = {"raw": share_raw * row.size if row.kind == Kind.PLANES else 0.0}
        codebook = share_codebook * (row.high - row.low) if row.has_codebook else 4.0 * row.has_step
        pieces = list(itertools.islice(coded, (row.has_codebook or row.has_step) + bool(row.moves)))
        codes, positions = (sum(bits) / 8 for bits in zip((0.0, 0.0), *pieces, strict=True))
        spent |= {"codebook": codebook, "positions": positions, "codes": codes}
        arrays.append(_array(row.name, array, row.kind, spent))
    return Layout(profile, len(data), sections, tuple(arrays))


def _array(name: str, array: np.ndarray, kind: Kind, spent: dict[str, float]) -> ArrayLayout:
    nonzero = array[array != 0]
    counts = np.unique(nonzero, return_counts=True)[1]
    entropy = {
        "positions": _entropy(np.array([len(nonzero), array.size - len(nonzero)])),
        "codes": _entropy(counts),
    }
    return ArrayLayout(
        name=name,
        shape=array.shape,
        kind=kind.name.lower(),
        density=len(nonzero) / max(array.size, 1),
        distinct=len(counts),
        bits=len(counts).bit_length(),
        bytes={part: spent[part] for part in ("codebook", "positions", "codes", "raw")},
        entropy=entropy,
    )


def _entropy(counts: np.ndarray) -> float:
    """Bytes of symbols of these counts at their zero-order entropy."""
    counts = counts[counts > 0]
    return float((counts * np.log2(counts.sum() / counts)).sum()) / 8
