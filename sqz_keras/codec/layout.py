"""Description of a `.sqz` file: its sections, and the bytes that each array takes."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from sqz_keras.codec import container
from sqz_keras.codec.array_table import Kind, Row
from sqz_keras.codec.decoder import decode_file
from sqz_keras.codec.entropy import entropy_bits, symbol_counts

# Indexed by `Kind`. Reports store these names, so they stay the same even if the enum's names change.
_KIND_NAMES = (
    "planes",
    "codebook",
    "grid",
    "same",
    "codebook_moved",
    "grid_moved",
    "trellis",
    "trellis_dense",
    "planes_moved",
)


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of the file.

    Args:
        name: Tag of the section.
        offset: Byte of the file at which the section begins.
        bytes: Size of the section, including its tag, length and checksum.
    """

    name: str
    offset: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class ArrayLayout:
    """An array of the file, and the bytes that it takes.

    Args:
        name: Name of the array.
        shape: Shape of the array.
        kind: How the array is stored: "planes", "codebook", "grid", "trellis" or "trellis_dense" (grids on a trellis,
            with 0 exempt or not), or in a delta also "same" (as the base's array), "codebook_moved" or "grid_moved"
            (codes as differences from the base's codes) or "planes_moved" (a grid added to the base's values).
        density: Share of elements that are not 0.
        distinct: Number of distinct values that are not 0.
        bits: Number of bits in a fixed-length code for 0 and these values; for "trellis", "trellis_dense" and
            "planes_moved", for 0 and the codes that occur.
        bytes: Bytes of the parts "codebook", "positions", "codes" and "raw". They are fractions, because arrays share
            sections and even bytes. Tables and checksums count only towards the sizes of the sections.
        entropy: Bytes of the parts "positions" and "codes" at the zero-order entropy of the codes. Empty if the file
            stores no codes ("planes", "same") or differences of codes ("codebook_moved", "grid_moved").
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
class Outline:
    """What a file says about itself before it is decoded.

    Args:
        profile: "max" or "paper".
        bytes: Size of the whole file.
        sections: The sections in their order. The fixed header of 16 bytes comes before them.
    """

    profile: str
    bytes: int
    sections: tuple[Section, ...]


@dataclasses.dataclass(frozen=True)
class Layout(Outline):
    """The layout of a file.

    Args:
        profile: As in `Outline`.
        bytes: As in `Outline`.
        sections: As in `Outline`.
        arrays: The arrays in their order.
        header: The JSON object that was encoded with them.
    """

    arrays: tuple[ArrayLayout, ...]
    header: dict


def outline(data: bytes) -> Outline:
    """Lists the sections of a `.sqz` file. Checksums are verified, but nothing is decoded.

    Args:
        data: The whole file.

    Returns:
        The profile, the size, and the sections with their places.

    Raises:
        SqzError: The file is cut short, a checksum does not match, or the container is otherwise malformed.
    """
    frame = container.read(data)
    sections = tuple(
        Section(
            tag,
            cursor.offset - container.SECTION_HEADER_SIZE,
            cursor.end - cursor.offset + container.SECTION_HEADER_SIZE,
        )
        for tag, cursor in frame.sections.items()
    )
    return Outline(frame.profile, len(data), sections)


def describe(data: bytes, base: bytes | None = None) -> Layout:
    """Describes where the bytes of a `.sqz` file are, and how many each array takes.

    Args:
        data: The whole file.
        base: The base, if the file is a delta.

    Returns:
        The sections, and for each array how it is stored and its bytes by part.

    Raises:
        SqzError: The file is damaged, as for `decode`.
    """
    file = decode_file(data, base, count_bits=True)
    spent = file.bits
    float_count = sum(row.size for row in file.rows if row.kind == Kind.PLANES)
    codebook_count = sum(row.codebook_size for row in file.rows)
    bytes_per_float = sum(spent.planes[:4]) / 8 / max(float_count, 1)
    bytes_per_value = sum(spent.planes[4:]) / 8 / max(codebook_count, 1)
    remaining = zip(spent.codes, spent.positions, strict=True)
    arrays = []
    for row, array, codes in zip(file.rows, file.arrays, file.codes, strict=True):
        parts = list(itertools.islice(remaining, row.has_codes + bool(row.difference_ranges)))
        array_bytes = {
            "codebook": bytes_per_value * row.codebook_size + 4.0 * row.has_grid,
            "positions": sum(positions for _, positions in parts) / 8,
            "codes": sum(codes for codes, _ in parts) / 8,
            "raw": bytes_per_float * row.size if row.kind == Kind.PLANES else 0.0,
        }
        symbols = codes if row.has_trellis or row.kind == Kind.PLANES_DELTA else array
        arrays.append(_array_layout(row, array, symbols, array_bytes))
    return Layout(**vars(outline(data)), arrays=tuple(arrays), header=file.header)


def _array_layout(row: Row, array: np.ndarray, symbols: np.ndarray, array_bytes: dict[str, float]) -> ArrayLayout:
    """Describes an array.

    Args:
        row: Its row of the table.
        array: Float32, its values.
        symbols: Its codes if it is on a trellis or on a grid that is added to the base, else its values.
        array_bytes: Its bytes by part.
    """
    nonzero = symbols[symbols != 0]
    counts = symbol_counts(nonzero)
    entropy = {}
    if row.has_codes and not row.difference_ranges:
        positions = np.array([len(nonzero), array.size - len(nonzero)])
        entropy = {"positions": entropy_bits(positions) / 8, "codes": entropy_bits(counts) / 8}
    return ArrayLayout(
        name=row.name,
        shape=array.shape,
        kind=_KIND_NAMES[row.kind],
        density=np.count_nonzero(array) / max(array.size, 1),
        distinct=len(counts) if symbols is array else len(np.unique(array[array != 0])),
        bits=len(counts).bit_length(),
        bytes=array_bytes,
        entropy=entropy,
    )
