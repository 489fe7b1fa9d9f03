"""The profile `paper`: the coding of Deep Compression, with relative indices, filler zeros and Huffman codes.

See section 3 of https://arxiv.org/abs/1510.00149.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence

import numpy as np

from sqz_keras.codec import huffman
from sqz_keras.codec.cursor import Cursor, encode_varint, inflate
from sqz_keras.codec.entropy import entropy_bits, symbol_counts
from sqz_keras.codec.errors import PositionError, TableError
from sqz_keras.codec.planes import CODED, RAW
from sqz_keras.codec.types import BitCounts, Codes, CodesSpec, DecodedStreams, EncodedStreams, PlanesSpec

MAX_INDEX_BITS = 12


@dataclasses.dataclass(frozen=True)
class _IndexedCodes:
    """An array of codes as the profile stores it.

    Args:
        index_bits: Number of bits in a gap; 0 if every code of the array is stored, without gaps.
        codes: Int64 (entries,), the stored codes.
        gaps: Int64 (entries,), the elements skipped before each code; empty if `index_bits` is 0.
    """

    index_bits: int
    codes: np.ndarray
    gaps: np.ndarray

    @property
    def estimated_bits(self) -> float:
        """Bits of the codes and gaps at their entropy, plus the bits of their Huffman code lengths."""
        total = 0.0
        for symbols in (self.codes, self.gaps):
            counts = symbol_counts(symbols)
            bits = entropy_bits(counts) + 2 * len(counts)
            total += max(bits, len(symbols) if len(counts) > 1 else 0)  # a Huffman code has at least 1 bit
        return total


def to_relative_index(flat: np.ndarray, index_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Lists the non-zero codes with the gaps between them, and a filler with code 0 wherever a gap needs more bits.

    Args:
        flat: Int16 (n,) codes.
        index_bits: Number of bits in a gap; a filler has the largest gap.

    Returns:
        Int64 (entries,) codes and int64 (entries,) gaps.
    """
    span = 1 << index_bits
    positions = np.flatnonzero(flat)
    gaps = np.diff(positions, prepend=-1) - 1
    ends = np.cumsum(gaps // span + 1)
    codes = np.zeros(ends[-1] if len(ends) else 0, np.int64)
    filled_gaps = np.full(len(codes), span - 1)
    codes[ends - 1], filled_gaps[ends - 1] = flat[positions], gaps % span
    return codes, filled_gaps


def from_relative_index(codes: np.ndarray, gaps: np.ndarray, index_bits: int, size: int, offset: int) -> np.ndarray:
    """Reverses `to_relative_index`.

    Args:
        codes: Integers (entries,).
        gaps: Integers (entries,).
        index_bits: Number of bits in a gap.
        size: Number of elements of the array.
        offset: Byte of the file to report in errors.

    Returns:
        Int16 (size,) codes.

    Raises:
        PositionError: A gap leads past the end of the array, or a filler occurs where `to_relative_index` writes none.
    """
    if (gaps[codes == 0] != (1 << index_bits) - 1).any() or (len(codes) and codes[-1] == 0):
        raise PositionError("A filler does not have the largest gap, or follows the last non-zero code", offset)
    positions = np.cumsum(gaps.astype(np.int64) + 1) - 1
    if len(positions) and positions[-1] >= size:
        raise PositionError(f"The gaps lead to position {positions[-1]} of {size}", offset)
    flat = np.zeros(size, np.int16)
    flat[positions] = codes
    return flat


def write(
    arrays: Sequence[Codes], planes: Sequence[np.ndarray], steps: bytes, float_shapes: Sequence[tuple[int, ...]]
) -> EncodedStreams:
    """Encodes arrays of codes and byte planes.

    Args:
        arrays: The arrays of codes.
        planes: Uint8 (n,), the eight planes.
        steps: The steps of all grids, as float32 bytes.
        float_shapes: Shape of each array that is stored as floats. This profile does not use them.
    """
    del float_shapes
    header, alphabets, symbols = bytearray(), [], []
    for array in arrays:
        indexed = _choose_index_bits(array.flat)
        header.append(indexed.index_bits)
        alphabets.append(array.spec.code_count)
        symbols.append(indexed.codes - array.spec.low)
        if indexed.index_bits:
            header += encode_varint(len(indexed.codes))
            alphabets.append(1 << indexed.index_bits)
            symbols.append(indexed.gaps)
    modes = [_choose_mode(plane) for plane in planes]
    coded_planes = [plane.astype(np.int64) for plane, mode in zip(planes, modes, strict=True) if mode == CODED]
    symbols += coded_planes
    alphabets += [256] * len(coded_planes)
    tables = [
        huffman.code_lengths(np.bincount(part, minlength=size)) for part, size in zip(symbols, alphabets, strict=True)
    ]
    header += bytes(modes) + zlib.compress(b"".join(table.tobytes() for table in tables), 9)
    raw = steps + b"".join(plane.tobytes() for plane, mode in zip(planes, modes, strict=True) if mode == RAW)
    return EncodedStreams(bytes(header), raw, huffman.write_stream(tables, symbols))


def _choose_mode(plane: np.ndarray) -> int:
    """Returns `CODED` if Huffman codes make a plane smaller, else `RAW`."""
    bits = _huffman_bits(huffman.code_lengths(np.bincount(plane)), plane)
    return CODED if bits // 8 + 64 < len(plane) else RAW


def _huffman_bits(lengths: np.ndarray, symbols: np.ndarray) -> float:
    """Returns the bits of symbols whose codes have these lengths."""
    return float(lengths[symbols].sum()) if np.count_nonzero(lengths) > 1 else 0.0


def _choose_index_bits(flat: np.ndarray) -> _IndexedCodes:
    """Indexes codes with the number of index bits that makes them smallest."""
    choices = [_IndexedCodes(0, flat.astype(np.int64), np.zeros(0, np.int64))]
    choices += [_IndexedCodes(bits, *to_relative_index(flat, bits)) for bits in range(1, MAX_INDEX_BITS + 1)]
    return min(choices, key=lambda choice: choice.estimated_bits)


def read(
    table: Cursor,
    raw: Cursor,
    stream: Cursor,
    specs: Sequence[CodesSpec],
    planes_spec: PlanesSpec,
    step_bytes: int,
    version: int,
    count_bits: bool = False,
) -> DecodedStreams:
    """Decodes what `write` encoded.

    Args:
        table: Cursor at the profile's part of the table of arrays.
        raw: Cursor over the section VALS.
        stream: Cursor over the section CODE.
        specs: Shape and range of each array of codes.
        planes_spec: What the planes hold.
        step_bytes: Number of bytes of the steps of all grids.
        version: Version of the file. This profile is the same in both versions.
        count_bits: Whether to count the bits that arrays and planes take.

    Raises:
        SqzError: The streams are malformed.
    """
    del version
    plane_sizes = planes_spec.sizes
    alphabets, counts, index_bits = _read_index_bits(table, specs)
    modes = list(table.take(len(plane_sizes)))
    if max(modes) > CODED:
        raise TableError("The mode of a plane is neither raw nor coded", table.offset - len(modes))
    coded_sizes = [size for size, mode in zip(plane_sizes, modes, strict=True) if mode == CODED]
    counts += coded_sizes
    tables = _read_code_lengths(table, alphabets + [256] * len(coded_sizes), counts)
    parts = huffman.read_stream(stream, tables, counts)
    symbols, codes = iter(parts), []
    for spec, bits in zip(specs, index_bits, strict=True):
        entries = next(symbols) + spec.low
        flat = from_relative_index(entries, next(symbols), bits, spec.size, stream.offset) if bits else entries
        codes.append(flat.astype(np.int16))
    steps = raw.take(step_bytes)
    planes = [
        next(symbols).astype(np.uint8) if mode == CODED else np.frombuffer(raw.take(size), np.uint8)
        for size, mode in zip(plane_sizes, modes, strict=True)
    ]
    raw.finish()
    bits = _bit_counts(tables, parts, index_bits, plane_sizes, modes) if count_bits else None
    return DecodedStreams(codes, planes, steps, modes, bits)


def _bit_counts(
    tables: list[np.ndarray],
    parts: list[np.ndarray],
    index_bits: list[int],
    plane_sizes: list[int],
    modes: list[int],
) -> BitCounts:
    """Returns the bits of all arrays and planes.

    Args:
        tables: The code lengths of each Huffman table.
        parts: Integers (n,) for each table, the symbols that it codes.
        index_bits: The index bits of each array of codes.
        plane_sizes: Number of bytes of each plane.
        modes: Mode of each plane.
    """
    bits = map(_huffman_bits, tables, parts)
    pairs = [(next(bits), next(bits) if indexed else 0.0) for indexed in index_bits]
    planes = [next(bits) if mode == CODED else 8.0 * size for size, mode in zip(plane_sizes, modes, strict=True)]
    return BitCounts([codes for codes, _ in pairs], [positions for _, positions in pairs], planes)


def _read_index_bits(table: Cursor, specs: Sequence[CodesSpec]) -> tuple[list[int], list[int], list[int]]:
    """Reads how each array of codes is indexed.

    Returns:
        The alphabet size and the number of symbols of each Huffman table, and the index bits of each array.
    """
    alphabets, counts, index_bits = [], [], []
    for spec in specs:
        start, bits = table.offset, table.uint(1)
        entries = table.varint() if bits else spec.size
        if bits > MAX_INDEX_BITS or entries > spec.size:
            raise TableError(f"{entries} entries with {bits} index bits for {spec.size} weights", start)
        index_bits.append(bits)
        alphabets += [spec.code_count, 1 << bits] if bits else [spec.code_count]
        counts += [entries, entries] if bits else [entries]
    return alphabets, counts, index_bits


def _read_code_lengths(table: Cursor, alphabets: list[int], counts: list[int]) -> list[np.ndarray]:
    """Reads the code lengths of all Huffman tables, which fill the rest of the section ARRS.

    Args:
        table: Cursor at the code lengths.
        alphabets: Number of symbols in the alphabet of each table.
        counts: Number of coded symbols of each table.

    Returns:
        Uint8 (alphabet,) code lengths of each table.
    """
    offset, total = table.offset, sum(alphabets)
    joined = np.frombuffer(inflate(table.rest(), total, offset), np.uint8)
    if len(joined) != total:
        raise TableError(f"Expected {total} code lengths, got {len(joined)}", offset)
    tables = np.split(joined, np.cumsum(alphabets))[:-1]
    for lengths, count in zip(tables, counts, strict=True):
        huffman.check_code_lengths(lengths, count > 0, offset)
    return tables
