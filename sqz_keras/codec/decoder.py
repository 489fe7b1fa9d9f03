"""Decoding of whole `.sqz` files. Nothing in a file is executed or trusted."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator

import numpy as np

from sqz_keras.codec import container, planes, trellis
from sqz_keras.codec.array_table import Kind, Row, check_codebook_is_used, check_range, read_row
from sqz_keras.codec.cursor import Cursor
from sqz_keras.codec.delta import NO_BASE, Base, BaseArray, add_base, add_to_floats
from sqz_keras.codec.errors import BaseFileError, CodebookError, TableError
from sqz_keras.codec.profiles import PROFILES
from sqz_keras.codec.types import BitCounts, DecodedStreams, PlanesSpec
from sqz_keras.codec.values import check_grid, codebook_values, grid_values


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a `.sqz` file holds.

    Args:
        arrays: Float32 arrays by name, in the order in which they were encoded.
        header: The JSON object that was encoded with them.
        profile: "max" or "paper".
    """

    arrays: dict[str, np.ndarray]
    header: dict
    profile: str


@dataclasses.dataclass(frozen=True)
class DecodedFile:
    """A decoded file, with the details that `describe` and deltas need.

    Args:
        profile: "max" or "paper".
        header: The JSON object that was encoded with the arrays.
        rows: The rows of the table of arrays.
        arrays: The float32 array of each row.
        codes: Int16 (n,) codes of each row, or None if it has no codes.
        modes: The mode of each plane.
        bits: The bits of each array of codes that the profile coded, in the order of the rows, and of each plane;
            None if they were not counted.
    """

    profile: str
    header: dict
    rows: list[Row]
    arrays: list[np.ndarray]
    codes: list[np.ndarray | None]
    modes: list[int]
    bits: BitCounts | None


def decode(data: bytes, base: bytes | None = None) -> Contents:
    """Decodes a `.sqz` file.

    Args:
        data: The whole file.
        base: The base, if the file is a delta.

    Returns:
        The arrays by name, the header, and the profile.

    Raises:
        SqzError: The file is damaged in any way, or its base is missing or wrong. The class of the error says what is
            wrong, and its `offset` where.
    """
    file = decode_file(data, base)
    arrays = {row.name: array for row, array in zip(file.rows, file.arrays, strict=True)}
    return Contents(arrays, file.header, file.profile)


def decode_file(data: bytes, base: bytes | None = None, count_bits: bool = False) -> DecodedFile:
    """Decodes a `.sqz` file, with all details of how its arrays are stored.

    Args:
        data: The whole file.
        base: The base, if the file is a delta.
        count_bits: Whether to count the bits that arrays and planes take. Counting takes time.

    Raises:
        SqzError: As for `decode`.
    """
    frame = container.read(data)
    sections = frame.sections
    whole = _check_base(sections.get("BASE"), base)
    base_arrays = whole.arrays
    header, shapes = container.read_json(sections["JSON"], whole.json if frame.version > 1 else b"")
    table, table_at, values_at = sections["ARRS"], sections["ARRS"].offset, sections["VALS"].offset
    rows = [read_row(table, name, shape, frame.version) for name, shape in shapes.items()]
    for row in rows:
        _check_base_array(row, base_arrays, table_at)
    specs_of_rows = [
        row.coded_specs(base_arrays[row.name].codes if row.difference_ranges else None, frame.version) for row in rows
    ]
    specs = [spec for row_specs in specs_of_rows for spec in row_specs]
    float_shapes = [row.shape for row in rows if row.kind == Kind.PLANES]
    streams = PROFILES[frame.profile].read(
        table,
        sections["VALS"],
        sections["CODE"],
        specs,
        PlanesSpec(float_shapes, sum(row.codebook_size for row in rows)),
        4 * sum(row.has_grid for row in rows),
        frame.version,
        count_bits,
    )
    remaining = iter(streams.codes)
    codes = [
        _join_codes(row, [next(remaining) for _ in row_specs], base_arrays, table_at) if row_specs else None
        for row, row_specs in zip(rows, specs_of_rows, strict=True)
    ]
    arrays = _build_arrays(rows, codes, streams, base_arrays, values_at)
    return DecodedFile(frame.profile, header, rows, arrays, codes, streams.modes, streams.bits)


def _build_arrays(
    rows: list[Row],
    codes: list[np.ndarray | None],
    streams: DecodedStreams,
    base_arrays: dict[str, BaseArray],
    offset: int,
) -> list[np.ndarray]:
    """Builds the float32 arrays from their codes, steps, codebooks, floats and bases.

    Args:
        rows: The rows of the table.
        codes: Int16 (n,) codes of each row, or None.
        streams: What the profile decoded.
        base_arrays: The base's arrays by name.
        offset: Byte of the file to report in errors.
    """
    float_sizes = [row.size for row in rows if row.kind == Kind.PLANES]
    codebook_sizes = [(-row.low, row.high) for row in rows if row.has_codebook]
    floats = iter(planes.unpack_floats(streams.planes, float_sizes, offset))
    codebooks = iter(planes.unpack_codebooks(streams.planes, codebook_sizes, offset))
    integers = _trellis_integers(rows, codes)
    steps, arrays = iter(np.frombuffer(streams.steps, "<f4")), []
    for row, flat in zip(rows, codes, strict=True):
        if row.kind == Kind.PLANES:
            array = next(floats).copy()
        elif row.kind == Kind.SAME:
            array = base_arrays[row.name].array.copy()
        elif row.has_trellis:
            step, flat = next(steps), next(integers)
            check_grid(grid_values(flat[[flat.argmin(), flat.argmax()]], step), step, offset)
            array = grid_values(flat, step)
        elif row.has_grid:
            step = next(steps)
            values = grid_values(np.arange(row.low, row.high + 1), step)
            check_grid(values, step, offset)
            array = values.take(flat - row.low)
            if row.kind == Kind.PLANES_DELTA:
                array = add_to_floats(base_arrays[row.name].array.ravel(), array)
                if not np.isfinite(array).all():
                    raise CodebookError(f"{row.name}: a value is infinite", offset)
        else:
            array = codebook_values(-row.low, next(codebooks)).take(flat - row.low)
        arrays.append(array.reshape(row.shape))
    return arrays


def _trellis_integers(rows: list[Row], codes: list[np.ndarray | None]) -> Iterator[np.ndarray]:
    """Returns the int32 (n,) integers of each array that is stored on a trellis."""
    on_trellis = [number for number, row in enumerate(rows) if row.has_trellis]
    by_filter = [trellis.by_filter(codes[number].reshape(rows[number].shape)) for number in on_trellis]
    dense = [rows[number].kind == Kind.TRELLIS_DENSE for number in on_trellis]
    return (integers.ravel() for integers in trellis.from_codes(by_filter, dense))


def _join_codes(row: Row, coded: list[np.ndarray], base_arrays: dict[str, BaseArray], offset: int) -> np.ndarray:
    """Returns the checked int16 (n,) codes of an array.

    Args:
        row: The row of the array.
        coded: The codes of the array, or its two arrays of differences from the base's codes.
        base_arrays: The base's arrays by name.
        offset: Byte of the file to report in errors.

    Raises:
        CodebookError: The codes do not match a range that the table declares, or a value of the codebook is not used.
    """
    for part, declared in zip(coded, row.difference_ranges or ((row.low, row.high),), strict=True):
        check_range(part, declared, row, offset)
    if not row.difference_ranges:
        check_codebook_is_used(coded[0], row, offset)
        return coded[0]
    flat = add_base(*coded, base_arrays[row.name].codes)
    check_range(flat, (row.low, row.high), row, offset)
    check_codebook_is_used(flat, row, offset)
    return flat.astype(np.int16)


def read_base(base: bytes) -> Base:
    """Decodes the base of a delta.

    Raises:
        SqzError: The base is damaged, or is a delta itself.
    """
    sections = container.read(base).sections
    if "BASE" in sections:
        raise BaseFileError("The base is a delta itself; only whole files can be bases", 0)
    file = decode_file(base)
    arrays = {
        row.name: BaseArray(array, None if row.has_trellis else codes)
        for row, array, codes in zip(file.rows, file.arrays, file.codes, strict=True)
    }
    return Base(arrays, container.json_text(sections["JSON"]))


def _check_base(section: Cursor | None, base: bytes | None) -> Base:
    """Checks that a base is given if, and only if, the file is a delta against it.

    Returns:
        The base; an empty one for a file that is not a delta.

    Raises:
        SqzError: The base is missing, damaged, not needed, or not the one that the delta needs.
    """
    if section is None:
        if base is not None:
            raise BaseFileError("A base is given, but the file is not a delta; leave the base out", 0)
        return NO_BASE
    start, digest = section.offset, section.take(32)
    section.finish()
    if base is None:
        raise BaseFileError(f"The file is a delta; give its base, the file with the sha256 {digest.hex()}", start)
    actual = hashlib.sha256(base).hexdigest()
    if actual != digest.hex():
        raise BaseFileError(f"The file is a delta; its base has the sha256 {digest.hex()}, got {actual}", start)
    return read_base(base)


def _check_base_array(row: Row, base_arrays: dict[str, BaseArray], offset: int) -> None:
    """Raises `TableError` if a row needs an array that the base does not have."""
    if not row.needs_base:
        return
    base = base_arrays.get(row.name)
    if base is None or base.array.shape != row.shape or (row.difference_ranges and base.codes is None):
        raise TableError(f"{row.name}: the base has no matching array", offset)
