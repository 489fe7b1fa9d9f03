"""Encoding of whole `.sqz` files."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping

import numpy as np

from sqz_keras.codec import container, planes, trellis
from sqz_keras.codec.array_table import Kind, Row
from sqz_keras.codec.decoder import read_base
from sqz_keras.codec.delta import NO_BASE, BaseArray, is_same, subtract_base, subtract_floats
from sqz_keras.codec.entropy import entropy_bits, symbol_counts
from sqz_keras.codec.profiles import PROFILES
from sqz_keras.codec.types import Codes, CodesSpec
from sqz_keras.codec.values import CodedArray, to_codes


def encode(
    arrays: Mapping[str, np.ndarray], header: Mapping, *, profile: str = "max", base: bytes | None = None
) -> bytes:
    """Encodes arrays and a header as a `.sqz` file, from which `decode` restores them bit for bit.

    Args:
        arrays: Finite float32 arrays by name.
        header: A JSON object.
        profile: "max" for the smallest file, except that for tiny or constant arrays it can be some hundred bytes
            larger than "paper", which codes as Deep Compression does.
        base: Another `.sqz` file, not itself a delta. If it is given, the result is a delta: what the arrays share
            with the base's arrays is not stored again.

    Returns:
        The whole file.

    Raises:
        ValueError: The profile is unknown, an array is not float32 or a value not finite, or the format does not allow
            the names, the shapes or the header, for example because they are too large.
        SqzError: The base is damaged, or is a delta itself.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile must be one of {tuple(PROFILES)}, got {profile!r}.")
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype != np.float32:
            raise ValueError(f"{name}: expected a float32 array, got {getattr(array, 'dtype', type(array).__name__)}.")
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: holds NaN or infinite values; only finite ones can be stored.")
    whole = NO_BASE if base is None else read_base(base)
    shapes = {name: array.shape for name, array in arrays.items()}
    sections = {"JSON": container.json_section(header, shapes, whole.json)}
    if base is not None:
        sections["BASE"] = hashlib.sha256(base).digest()
    rows, codes, coded_arrays, floats = [], [], [], []
    for name, array in arrays.items():
        row, row_codes, coded = _choose_kind(name, array, whole.arrays.get(name))
        rows.append(row)
        codes += row_codes
        if coded is not None:
            coded_arrays.append(coded)
        if row.kind == Kind.PLANES:
            floats.append(array)
    byte_planes = planes.pack(floats, [coded.codebook for coded in coded_arrays if coded.codebook is not None])
    steps = b"".join(struct.pack("<f", coded.step) for coded in coded_arrays if coded.step is not None)
    streams = PROFILES[profile].write(codes, byte_planes, steps, [array.shape for array in floats])
    table = b"".join(row.to_bytes() for row in rows) + streams.table
    version = 2 if base is not None or any(row.has_trellis for row in rows) else streams.version
    return container.write(version, profile, {**sections, "ARRS": table, "VALS": streams.raw, "CODE": streams.coded})


def _choose_kind(name: str, array: np.ndarray, base: BaseArray | None) -> tuple[Row, list[Codes], CodedArray | None]:
    """Chooses how to store an array.

    Returns:
        Its row of the table, the arrays of codes that the profile codes for it, and its codes with their step or
        codebook, or None if it is not stored as codes.
    """
    if is_same(array, base):
        return Row(name, array.shape, Kind.SAME), [], None
    coded = to_codes(array)
    if coded is None:
        return subtract_floats(name, array, base) or (Row(name, array.shape, Kind.PLANES), [], None)
    on_trellis = _find_trellis(name, coded)
    if on_trellis is not None:
        return *on_trellis, coded
    delta = subtract_base(name, coded, base)
    if delta is not None:
        return *delta, coded
    kind = Kind.CODEBOOK if coded.step is None else Kind.GRID
    spec = CodesSpec(array.shape, coded.low, coded.high)
    return Row(name, array.shape, kind, coded.low, coded.high), [Codes(coded.codes.ravel(), spec)], coded


def _find_trellis(name: str, coded: CodedArray) -> tuple[Row, list[Codes]] | None:
    """Finds the trellis codes of an array on a grid.

    Returns:
        The row of the array and its trellis codes. None if the array is not on a trellis, or if its trellis codes would
        not be smaller than its grid codes.
    """
    shape = coded.codes.shape
    if coded.step is None or not trellis.fits(shape):
        return None
    best, bits = None, entropy_bits(symbol_counts(coded.codes))
    for kind in (Kind.TRELLIS_DENSE, Kind.TRELLIS):
        codes = trellis.to_codes(trellis.by_filter(coded.codes), kind == Kind.TRELLIS_DENSE)
        if codes is not None and (code_bits := entropy_bits(symbol_counts(codes))) < bits:
            best, bits = (kind, codes), code_bits
    if best is None:
        return None
    kind, codes = best
    spec = CodesSpec(shape, min(0, int(codes.min())), max(0, int(codes.max())))
    return Row(name, shape, kind, spec.low, spec.high), [Codes(codes.astype(np.int16).ravel(), spec)]
