"""Whole `.sqz` files: arrays and a header to bytes, and back."""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from collections.abc import Mapping

import numpy as np

from sqz_keras.codec import container, profile_paper
from sqz_keras.codec import planes as byte_planes
from sqz_keras.codec.array_table import Kind, Row, check_codebook_used, check_used, read_row
from sqz_keras.codec.cursor import Cursor
from sqz_keras.codec.delta import BaseArray, from_moves, moved, same
from sqz_keras.codec.errors import BaseFileError, TableError
from sqz_keras.codec.profile_max import coder as profile_max
from sqz_keras.codec.types import Bits, Codes, Shape
from sqz_keras.codec.values import Quantized, check_grid, codebook_values, grid_values, quantized

_PROFILES = {"paper": profile_paper, "max": profile_max}


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a `.sqz` file holds.

    Args:
        arrays: float32 arrays by name, in the order in which they were encoded.
        header: the JSON object that was encoded with them.
        profile: "max" or "paper".
    """

    arrays: dict[str, np.ndarray]
    header: dict
    profile: str


@dataclasses.dataclass(frozen=True)
class Parts:
    """A decoded file with what `describe` and deltas want to know.

    Args:
        profile: "max" or "paper".
        header: the caller's.
        rows: the table of arrays.
        arrays: float32, one for each row.
        codes: flat, one for each row, or None.
        bits: what is spent on the codes of each array of codes, and on each of the eight planes; None if not asked for.
    """

    profile: str
    header: dict
    rows: list[Row]
    arrays: list[np.ndarray]
    codes: list[np.ndarray | None]
    bits: Bits | None


def encode(
    arrays: Mapping[str, np.ndarray], header: Mapping, *, profile: str = "max", base: bytes | None = None
) -> bytes:
    """A `.sqz` file from which exactly these arrays come back.

    Args:
        arrays: finite float32 arrays by name.
        header: a JSON object.
        profile: "max" for the smallest file, "paper" for the coding of Deep Compression.
        base: another `.sqz` file, no delta itself; what the arrays have in common with its arrays is not stored again.

    Raises:
        ValueError: a value is not finite, an array not float32, or the arrays or the header are too large.
        SqzError: the base is damaged, or a delta.
    """
    if profile not in _PROFILES:
        raise ValueError(f"profile must be one of {tuple(_PROFILES)}, got {profile!r}.")
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype != np.float32:
            raise ValueError(f"{name}: expected a float32 array, got {getattr(array, 'dtype', type(array).__name__)}.")
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: holds NaN or infinite values; only finite ones can be stored.")
    sections = {"JSON": container.json_section(header, {name: array.shape for name, array in arrays.items()})}
    known = {}
    if base is not None:
        sections["BASE"] = hashlib.sha256(base).digest()
        known = _base_arrays(base)
    stored = [_stored(name, array, known.get(name)) for name, array in arrays.items()]
    codes = [each for _, parts, _ in stored for each in parts]
    forms = [form for _, _, form in stored if form is not None]
    floats = [array for (row, *_), array in zip(stored, arrays.values(), strict=True) if row.kind == Kind.PLANES]
    planes = byte_planes.pack(floats, [form.values for form in forms if form.values is not None])
    steps = b"".join(struct.pack("<f", form.step) for form in forms if form.step is not None)
    part, raw, stream = _PROFILES[profile].write(codes, planes, steps)
    table = b"".join(row.to_bytes() for row, *_ in stored) + part
    return container.write(profile, {**sections, "ARRS": table, "VALS": raw, "CODE": stream})


def _stored(name: str, array: np.ndarray, base: BaseArray | None) -> tuple[Row, list[Codes], Quantized | None]:
    """How an array is stored: its row, what is coded for it, and its small integers if it has any."""
    if same(array, base):
        return Row(name, array.shape, Kind.SAME), [], None
    form = quantized(array)
    if form is None:
        return Row(name, array.shape, Kind.PLANES), [], None
    kind = Kind.CODEBOOK if form.step is None else Kind.GRID
    plain = Row(name, array.shape, kind, form.low, form.high)
    whole = [Codes(form.codes.ravel(), Shape(array.shape, form.low, form.high))]
    return *(moved(name, form, base) or (plain, whole)), form


def decode(data: bytes, base: bytes | None = None) -> Contents:
    """What a `.sqz` file holds; nothing in it is executed or trusted.

    Args:
        data: the whole file.
        base: the file that it is a delta against.

    Raises:
        SqzError: the file is damaged in any way; its class says how, its `offset` where.
    """
    parts = read_parts(data, base)
    names = [row.name for row in parts.rows]
    return Contents(dict(zip(names, parts.arrays, strict=True)), parts.header, parts.profile)


def read_parts(data: bytes, base: bytes | None = None, measure: bool = False) -> Parts:
    """`decode`, and what each part costs."""
    profile, sections = container.read(data)
    header, shapes = container.read_json(sections["JSON"])
    known = _check_base(sections.get("BASE"), base)
    table, coding = sections["ARRS"], _PROFILES[profile]
    start, values_at = table.offset, sections["VALS"].offset
    rows = [read_row(table, name, shape) for name, shape in shapes.items()]
    for row in rows:
        _check_row(row, known, start)
    coded = [row.shapes(known[row.name].codes if row.moves else None) for row in rows]
    float_sizes = [row.size for row in rows if row.kind == Kind.PLANES]
    codebook_sizes = [(-row.low, row.high) for row in rows if row.has_codebook]
    flat_shapes = [shape for parts in coded for shape in parts]
    found = coding.read(
        table,
        sections["VALS"],
        sections["CODE"],
        flat_shapes,
        [sum(float_sizes)] * 4 + [sum(below + above for below, above in codebook_sizes)] * 4,
        4 * sum(row.has_step for row in rows),
    )
    streams = iter(found.codes)
    codes = [
        _codes(row, [next(streams) for _ in parts], known, start) if parts else None
        for row, parts in zip(rows, coded, strict=True)
    ]
    floats = byte_planes.unpack_floats(found.planes, float_sizes, values_at)
    codebooks = byte_planes.unpack_codebooks(found.planes, codebook_sizes, values_at)
    arrays = _arrays(rows, codes, floats, codebooks, np.frombuffer(found.steps, "<f4"), known, values_at)
    if not measure:
        return Parts(profile, header, rows, arrays, codes, None)
    joined = [Codes(flat, shape) for flat, shape in zip(found.codes, flat_shapes, strict=True)]
    return Parts(profile, header, rows, arrays, codes, coding.measure(joined, found.planes))


def _arrays(
    rows: list[Row],
    codes: list[np.ndarray | None],
    floats: list[np.ndarray],
    codebooks: list[np.ndarray],
    steps: np.ndarray,
    known: dict[str, BaseArray],
    offset: int,
) -> list[np.ndarray]:
    """The arrays, each from what its kind is made of; what belongs to rows of one kind comes in their order."""
    float_parts, books, grids, arrays = iter(floats), iter(codebooks), iter(steps), []
    for row, flat in zip(rows, codes, strict=True):
        if row.kind == Kind.PLANES:
            array = next(float_parts).copy()
        elif row.kind == Kind.SAME:
            array = known[row.name].array.copy()
        elif row.has_step:
            step = next(grids)
            values = grid_values(row.low, row.high, step)
            check_grid(values, step, offset)
            array = values.take(flat - row.low)
        else:
            array = codebook_values(-row.low, next(books)).take(flat - row.low)
        arrays.append(array.reshape(row.shape))
    return arrays


def _codes(row: Row, parts: list[np.ndarray], known: dict[str, BaseArray], offset: int) -> np.ndarray:
    """The checked codes of an array, from what was coded for it."""
    for part, span in zip(parts, row.moves or ((row.low, row.high),), strict=True):
        check_used(part, span, row, offset)
    if not row.moves:
        check_codebook_used(parts[0], row, offset)
        return parts[0]
    flat = from_moves(*parts, known[row.name].codes)
    check_used(flat, (row.low, row.high), row, offset)
    check_codebook_used(flat, row, offset)
    return flat.astype(np.int16)


def _check_base(section: Cursor | None, base: bytes | None) -> dict[str, BaseArray]:
    """The base's arrays by name; none for a file that is no delta."""
    if section is None:
        if base is not None:
            raise BaseFileError("A base is given, but the file is no delta", 0)
        return {}
    start, digest = section.offset, section.take(32)
    section.finish()
    if base is None:
        raise BaseFileError(f"A delta against the file of sha256 {digest.hex()}, which must be given", start)
    if hashlib.sha256(base).digest() != digest:
        raise BaseFileError(f"A delta against the file of sha256 {digest.hex()}; another is given", start)
    return _base_arrays(base)


def _base_arrays(base: bytes) -> dict[str, BaseArray]:
    if "BASE" in container.read(base)[1]:
        raise BaseFileError("The base is a delta itself; only whole files are bases", 0)
    parts = read_parts(base)
    return {
        row.name: BaseArray(array, codes)
        for row, array, codes in zip(parts.rows, parts.arrays, parts.codes, strict=True)
    }


def _check_row(row: Row, known: dict[str, BaseArray], offset: int) -> None:
    """Refuses a row that needs an array which the base does not have."""
    if row.kind < Kind.SAME:
        return
    base = known.get(row.name)
    if base is None or base.array.shape != row.shape or (row.moves and base.codes is None):
        raise TableError(f"{row.name}: nothing in the base fits it", offset)
