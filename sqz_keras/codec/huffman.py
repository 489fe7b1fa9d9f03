"""Canonical Huffman codes of at most 15 bits, written in lanes that are decoded in lockstep."""

from __future__ import annotations

import heapq

import numpy as np

from sqz_keras.codec.cursor import Cursor, bit_windows, pack_bits, varint
from sqz_keras.codec.errors import HuffmanError, PaddingError, StreamError, TableError

MAX_LENGTH = 15
MAX_FIELD = 17  # bits of a lane's length beyond the shortest lane's


def code_lengths(counts: np.ndarray) -> np.ndarray:
    """uint8 code lengths of an optimal prefix code, 0 for what does not occur; 1 where only one symbol occurs."""
    counts = np.asarray(counts, np.int64)
    while True:
        lengths = _unlimited_lengths(counts)
        if lengths.max(initial=0) <= MAX_LENGTH:
            return lengths.astype(np.uint8)
        counts = (counts + 1) // 2  # flattens the code until it fits


def _unlimited_lengths(counts: np.ndarray) -> np.ndarray:
    lengths = np.zeros(len(counts), np.int64)
    used = np.flatnonzero(counts)
    if len(used) == 1:
        lengths[used] = 1
    heap = [(int(counts[symbol]), int(symbol)) for symbol in used]
    heapq.heapify(heap)
    parent, node = {}, len(counts)
    while len(heap) > 1:
        first, second = heapq.heappop(heap), heapq.heappop(heap)
        parent[first[1]] = parent[second[1]] = node
        heapq.heappush(heap, (first[0] + second[0], node))
        node += 1
    depth = {node - 1: 0}
    for child in sorted(parent, reverse=True):
        depth[child] = depth[parent[child]] + 1
        if child < len(counts):
            lengths[child] = depth[child]
    return lengths


def check_lengths(lengths: np.ndarray, needed: bool, offset: int) -> None:
    """Refuses lengths that are no complete prefix code, or none at all where symbols are to come."""
    used = lengths[lengths > 0].astype(np.int64)
    if lengths.max(initial=0) > MAX_LENGTH:
        raise HuffmanError(f"A code length of {lengths.max()}; at most {MAX_LENGTH} are allowed", offset)
    if (len(used) > 0) != needed:
        raise HuffmanError("A table is empty where symbols follow, or filled where none do", offset)
    if len(used) == 1 and used[0] != 1:
        raise HuffmanError("The only symbol of a table must have length 1", offset)
    if len(used) > 1 and (1 << (MAX_LENGTH - used)).sum() != 1 << MAX_LENGTH:
        raise HuffmanError("Code lengths that are no complete prefix code", offset)


def canonical_codes(lengths: np.ndarray) -> np.ndarray:
    """int64 codes by symbol: shorter codes first, equally long ones by symbol."""
    order = np.lexsort((np.arange(len(lengths)), lengths))
    order = order[lengths[order] > 0]
    codes = np.zeros(len(lengths), np.int64)
    spans = 1 << (MAX_LENGTH - lengths[order].astype(np.int64))
    codes[order] = (np.cumsum(spans) - spans) // spans
    return codes


def lanes(count: int) -> int:
    """Number of lanes of a stream of so many symbols; symbol i is in lane i modulo this."""
    return max(1, min(256, count // 64))


def write_stream(tables: list[np.ndarray], symbols: list[np.ndarray]) -> bytes:
    """The bits of a stream: each lane's length, packed, then the lanes one behind the other.

    Args:
        tables: code lengths of each table.
        symbols: what each table codes, in the order of the tables; that of a lone symbol takes no bits.
    """
    codes, lengths = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for table, coded in zip(tables, symbols, strict=True):
        if np.count_nonzero(table) > 1:
            each = canonical_codes(table)
            codes.append(each[coded])
            lengths.append(table[coded].astype(np.int64))
    return _write_lanes(np.concatenate(codes), np.concatenate(lengths))


def _write_lanes(codes: np.ndarray, lengths: np.ndarray) -> bytes:
    width = lanes(len(codes))
    steps = -(-len(codes) // width)
    grid = np.zeros(steps * width, np.int64)
    grid[: len(codes)] = lengths
    grid = grid.reshape(steps, width)
    totals = grid.sum(axis=0)
    starts = np.cumsum(totals) - totals + np.cumsum(grid, axis=0) - grid
    least = int(totals.min())
    bits = int(totals.max() - least).bit_length()
    if bits > MAX_FIELD:
        raise ValueError("The lanes of a Huffman stream differ too much in length.")
    sizes = pack_bits(totals - least, np.full(width, bits), np.arange(width) * bits, width * bits)
    body = pack_bits(codes, lengths, starts.ravel()[: len(codes)], int(totals.sum()))
    return varint(least) + bytes([bits]) + sizes + body


def read_stream(cursor: Cursor, tables: list[np.ndarray], counts: list[int]) -> list[np.ndarray]:
    """The symbols of a stream, which fills the rest of its section.

    Args:
        cursor: at the stream.
        tables: code lengths, already checked, of each table.
        counts: how many symbols each table codes.

    Returns:
        int32 symbols of each table.
    """
    coded = [number for number, table in enumerate(tables) if np.count_nonzero(table) > 1]
    total = sum(counts[number] for number in coded)
    width, start = lanes(total), cursor.offset
    least, bits = cursor.varint(), cursor.uint(1)
    if bits > MAX_FIELD:
        raise TableError(f"Lane lengths of {bits} bits; at most {MAX_FIELD} are allowed", start)
    sizes = _read_fields(cursor, width, bits)
    if bits and (sizes.min() or int(sizes.max()).bit_length() != bits):
        raise PaddingError("Lane lengths are not written as tightly as they can be", start)
    ends = np.cumsum(sizes + least)
    start, size = cursor.offset, int(ends[-1])
    body = cursor.take((size + 7) // 8)
    if size % 8 and body[-1] & (255 >> size % 8):
        raise PaddingError("The bits behind the last lane must be 0", start + len(body) - 1)
    cursor.finish()
    if total > size:
        raise StreamError(f"{total} symbols cannot be in {size} bits", start)
    found = _lockstep(body, ends, [tables[number] for number in coded], [counts[number] for number in coded], start)
    parts = dict(zip(coded, np.split(found, np.cumsum([counts[number] for number in coded])), strict=False))
    return [
        parts[number] if number in parts else np.full(count, np.argmax(table) if count else 0, np.int32)
        for number, (table, count) in enumerate(zip(tables, counts, strict=True))
    ]


def _read_fields(cursor: Cursor, count: int, bits: int) -> np.ndarray:
    """`count` numbers of `bits` bits each, filled up with 0 to a byte."""
    start, raw = cursor.offset, cursor.take((count * bits + 7) // 8)
    if not bits:
        return np.zeros(count, np.int64)
    unpacked = np.unpackbits(np.frombuffer(raw, np.uint8))
    if unpacked[count * bits :].any():
        raise PaddingError("The bits behind the lane lengths must be 0", start + len(raw) - 1)
    return unpacked[: count * bits].reshape(count, bits).astype(np.int64) @ (1 << np.arange(bits)[::-1])


def _lockstep(body: bytes, ends: np.ndarray, tables: list[np.ndarray], counts: list[int], offset: int) -> np.ndarray:
    """int32 symbols of all tables in one row; a step decodes one symbol of each lane."""
    total, width = sum(counts), len(ends)
    lookup = np.concatenate([*(_lookup(lengths) for lengths in tables), np.zeros(1 << MAX_LENGTH, np.int32)])
    steps = -(-total // width)
    bases = np.full(steps * width, len(tables) << MAX_LENGTH, np.int32)  # the empty slots take 0 bits
    bases[:total] = np.repeat(np.arange(len(tables), dtype=np.int32) << MAX_LENGTH, counts)
    bases = bases.reshape(steps, width)
    windows = bit_windows(body)
    positions = np.concatenate([[0], ends[:-1]])
    found = np.zeros((steps, width), np.int32)
    for base, out in zip(bases, found, strict=True):
        window = windows.take(positions >> 3, mode="clip") << (positions & 7).astype(np.uint32)
        base += (window >> (32 - MAX_LENGTH)).astype(np.int32)
        lookup.take(base, out=out)
        positions += out & 15
    if (positions != ends).any():
        raise StreamError("A lane of the Huffman stream does not end where it must", offset)
    return found.ravel()[:total] >> 4


def _lookup(lengths: np.ndarray) -> np.ndarray:
    """int32 (2**15,): symbol << 4 | bits, by the next 15 bits."""
    used = np.flatnonzero(lengths)
    order = used[np.argsort(lengths[used], kind="stable")]
    bits = lengths[order].astype(np.int32)
    return np.repeat((order << 4).astype(np.int32) | bits, 1 << (MAX_LENGTH - bits))
