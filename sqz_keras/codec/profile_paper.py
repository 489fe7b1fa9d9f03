"""The profile `paper`: Deep Compression's codebooks, relative indices with filler zeros, and Huffman codes."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from sqz_keras.codec import huffman
from sqz_keras.codec.cursor import Cursor, inflate, varint
from sqz_keras.codec.errors import PositionError, TableError
from sqz_keras.codec.types import Bits, Codes, Decoded, Shape

MAX_INDEX_BITS = 12
_RAW, _CODED = 0, 1


def relative_index(flat: np.ndarray, index_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """(entries,) codes and gaps: each non-zero, and a filler of code 0 wherever a gap would need more bits.

    Args:
        flat: (n,) codes.
        index_bits: bits of a gap; a filler has the largest gap.
    """
    span = 1 << index_bits
    positions = np.flatnonzero(flat)
    gaps = np.diff(positions, prepend=-1) - 1
    ends = np.cumsum(gaps // span + 1)
    codes = np.zeros(ends[-1] if len(ends) else 0, np.int64)
    filled = np.full(len(codes), span - 1)
    codes[ends - 1], filled[ends - 1] = flat[positions], gaps % span
    return codes, filled


def from_relative_index(codes: np.ndarray, gaps: np.ndarray, index_bits: int, size: int, offset: int) -> np.ndarray:
    """int16 (size,) codes from what `relative_index` made; refuses what it never makes."""
    if (gaps[codes == 0] != (1 << index_bits) - 1).any() or (len(codes) and codes[-1] == 0):
        raise PositionError("A filler with another gap than the largest, or behind the last value", offset)
    positions = np.cumsum(gaps.astype(np.int64) + 1) - 1
    if len(positions) and positions[-1] >= size:
        raise PositionError(f"The gaps lead to position {positions[-1]} of {size}", offset)
    flat = np.zeros(size, np.int16)
    flat[positions] = codes
    return flat


def write(arrays: Sequence[Codes], planes: Sequence[np.ndarray], steps: bytes) -> tuple[bytes, bytes, bytes]:
    """The profile's part of the table of arrays, the raw bytes, and the coded stream."""
    table, alphabets, symbols = bytearray(), [], []
    for array in arrays:
        index_bits, codes, gaps = _choose(array.flat)
        table += bytes([index_bits])
        alphabets.append(array.shape.high - array.shape.low + 1)
        symbols.append(codes - array.shape.low)
        if index_bits:
            table += varint(len(codes))
            alphabets.append(1 << index_bits)
            symbols.append(gaps)
    modes = [_mode(plane) for plane in planes]
    coded = [plane.astype(np.int64) for plane, mode in zip(planes, modes, strict=True) if mode == _CODED]
    symbols += coded
    alphabets += [256] * len(coded)
    lengths = [
        huffman.code_lengths(np.bincount(each, minlength=size)) for each, size in zip(symbols, alphabets, strict=True)
    ]
    table += bytes(modes) + zlib.compress(b"".join(each.tobytes() for each in lengths), 9)
    raw = steps + b"".join(plane.tobytes() for plane, mode in zip(planes, modes, strict=True) if mode == _RAW)
    return bytes(table), raw, huffman.write_stream(lengths, symbols)


def measure(arrays: Sequence[Codes], planes: Sequence[np.ndarray]) -> Bits:
    """What `write` spends on each array and plane."""
    chosen = [_choose(array.flat) for array in arrays]
    return Bits(
        codes=[_huffman_bits(codes - codes.min(initial=0)) for _, codes, _ in chosen],
        positions=[_huffman_bits(gaps) for _, _, gaps in chosen],
        planes=[_huffman_bits(plane) if _mode(plane) == _CODED else 8.0 * len(plane) for plane in planes],
    )


def _mode(plane: np.ndarray) -> int:
    return _CODED if _huffman_bits(plane) // 8 + 64 < len(plane) else _RAW


def _huffman_bits(symbols: np.ndarray) -> float:
    lengths = huffman.code_lengths(np.bincount(symbols))
    return float(lengths[symbols].sum()) if np.count_nonzero(lengths) > 1 else 0.0


def _choose(flat: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """The index bits that make these codes smallest, and the codes and gaps with them; no gaps with 0 bits."""
    choices = [(0, flat.astype(np.int64), np.zeros(0, np.int64))]
    choices += [(bits, *relative_index(flat, bits)) for bits in range(1, MAX_INDEX_BITS + 1)]
    return min(choices, key=lambda choice: _cost(*choice[1:]))


def _cost(codes: np.ndarray, gaps: np.ndarray) -> float:
    """Bits of the codes and gaps at their entropy, and of their code lengths."""
    total = 0.0
    for symbols in (codes, gaps):
        counts = np.unique(symbols, return_counts=True)[1].astype(np.float64)
        bits = -(counts * np.log2(counts / max(len(symbols), 1))).sum() + 2 * len(counts)
        total += max(bits, len(symbols) if len(counts) > 1 else 0)  # Huffman's codes have a bit at least
    return total


def read(
    table: Cursor, raw: Cursor, stream: Cursor, shapes: Sequence[Shape], plane_sizes: Sequence[int], step_bytes: int
) -> Decoded:
    """What `write` was given.

    Args:
        table: at the profile's part of the table of arrays.
        raw: over the raw bytes.
        stream: over the coded stream.
        shapes: of the arrays.
        plane_sizes: bytes of each plane.
        step_bytes: bytes of the grids' steps.
    """
    alphabets, counts, index_bits = [], [], []
    for shape in shapes:
        start, bits = table.offset, table.uint(1)
        entries = table.varint() if bits else shape.size
        if bits > MAX_INDEX_BITS or entries > shape.size:
            raise TableError(f"{entries} entries of {bits} index bits for {shape.size} weights", start)
        index_bits.append(bits)
        alphabets += [shape.high - shape.low + 1, 1 << bits] if bits else [shape.high - shape.low + 1]
        counts += [entries, entries] if bits else [entries]
    modes = list(table.take(len(plane_sizes)))
    if max(modes) > _CODED:
        raise TableError("A plane is neither raw nor coded", table.offset - len(modes))
    coded = [size for size, mode in zip(plane_sizes, modes, strict=True) if mode == _CODED]
    tables = _read_lengths(table, alphabets + [256] * len(coded), counts + coded)
    symbols = iter(huffman.read_stream(stream, tables, counts + coded))
    codes = []
    for shape, bits in zip(shapes, index_bits, strict=True):
        each = next(symbols) + shape.low
        each = from_relative_index(each, next(symbols), bits, shape.size, stream.offset) if bits else each
        codes.append(each.astype(np.int16))
    steps = raw.take(step_bytes)
    planes = [
        next(symbols).astype(np.uint8) if mode == _CODED else np.frombuffer(raw.take(size), np.uint8)
        for size, mode in zip(plane_sizes, modes, strict=True)
    ]
    raw.finish()
    return Decoded(codes, planes, steps)


def _read_lengths(table: Cursor, alphabets: list[int], counts: list[int]) -> list[np.ndarray]:
    """The code lengths that fill the rest of the table of arrays."""
    offset, total = table.offset, sum(alphabets)
    joined = np.frombuffer(inflate(table.rest(), total, offset), np.uint8)
    if len(joined) != total:
        raise TableError(f"Expected {total} code lengths, found {len(joined)}", offset)
    tables = np.split(joined, np.cumsum(alphabets))[:-1]
    for lengths, count in zip(tables, counts, strict=True):
        huffman.check_lengths(lengths, count > 0, offset)
    return tables
