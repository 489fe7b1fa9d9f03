"""Canonical Huffman codes of at most 15 bits.

A stream consists of lanes, which are decoded in lockstep: a step decodes one symbol of every lane.
"""

from __future__ import annotations

import heapq

import numpy as np

from sqz_keras.codec.cursor import Cursor, bit_windows, encode_varint, pack_bits
from sqz_keras.codec.errors import HuffmanError, PaddingError, StreamError, TableError

MAX_LENGTH = 15
MAX_FIELD_BITS = 17  # limit for the field that says by how much a lane is longer than the shortest one


def code_lengths(counts: np.ndarray) -> np.ndarray:
    """Finds the code lengths of an optimal prefix code of at most 15 bits.

    Args:
        counts: Integers (alphabet,), how often each symbol occurs.

    Returns:
        Uint8 (alphabet,): 0 for symbols that do not occur, 1 for a symbol that occurs alone.
    """
    counts = np.asarray(counts, np.int64)
    while True:
        lengths = _unlimited_lengths(counts)
        if lengths.max(initial=0) <= MAX_LENGTH:
            return lengths.astype(np.uint8)
        counts = (counts + 1) // 2  # makes the counts more even until the code fits


def _unlimited_lengths(counts: np.ndarray) -> np.ndarray:
    """Returns the int64 code lengths of Huffman's algorithm, without a limit."""
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


def check_code_lengths(lengths: np.ndarray, needed: bool, offset: int) -> None:
    """Checks the code lengths of a table.

    Args:
        lengths: Uint8 (alphabet,).
        needed: Whether the table codes any symbols.
        offset: Byte of the file to report in errors.

    Raises:
        HuffmanError: The lengths do not make a complete prefix code, or are all 0 although the table is needed, or are
            not all 0 although it is not needed.
    """
    used = lengths[lengths > 0].astype(np.int64)
    if lengths.max(initial=0) > MAX_LENGTH:
        raise HuffmanError(f"A code length is {lengths.max()}; at most {MAX_LENGTH} is allowed", offset)
    if needed and len(used) == 0:
        raise HuffmanError("A table that codes symbols is empty", offset)
    if not needed and len(used) > 0:
        raise HuffmanError("A table that codes no symbols has code lengths", offset)
    if len(used) == 1 and used[0] != 1:
        raise HuffmanError("The only symbol of a table must have length 1", offset)
    if len(used) > 1 and (1 << (MAX_LENGTH - used)).sum() != 1 << MAX_LENGTH:
        raise HuffmanError("Code lengths do not make a complete prefix code", offset)


def canonical_codes(lengths: np.ndarray) -> np.ndarray:
    """Returns the int64 (alphabet,) canonical codes: shorter codes first, codes of equal length in symbol order."""
    order = np.lexsort((np.arange(len(lengths)), lengths))
    order = order[lengths[order] > 0]
    codes = np.zeros(len(lengths), np.int64)
    spans = 1 << (MAX_LENGTH - lengths[order].astype(np.int64))
    codes[order] = (np.cumsum(spans) - spans) // spans
    return codes


def lane_count(symbols: int) -> int:
    """Returns the number of lanes of a stream of `symbols` symbols; symbol i is in lane i modulo this number."""
    return max(1, min(256, symbols // 64))


def write_stream(tables: list[np.ndarray], symbols: list[np.ndarray]) -> bytes:
    """Encodes symbols: the packed lengths of the lanes, then the lanes one after the other.

    Args:
        tables: Uint8 (alphabet,) code lengths of each table.
        symbols: Integers (n,) for each table, the symbols that it codes. A table's only symbol takes no bits.

    Raises:
        ValueError: The lengths of the lanes differ too much for the format.
    """
    codes, lengths = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for table, part in zip(tables, symbols, strict=True):
        if np.count_nonzero(table) > 1:
            codes.append(canonical_codes(table)[part])
            lengths.append(table[part].astype(np.int64))
    return _write_lanes(np.concatenate(codes), np.concatenate(lengths))


def _write_lanes(codes: np.ndarray, lengths: np.ndarray) -> bytes:
    """Distributes codes over the lanes.

    Args:
        codes: Int64 (n,), the code of each symbol of the stream.
        lengths: Int64 (n,), the bits of each code.
    """
    width = lane_count(len(codes))
    steps = -(-len(codes) // width)
    grid = np.zeros(steps * width, np.int64)
    grid[: len(codes)] = lengths
    grid = grid.reshape(steps, width)
    totals = grid.sum(axis=0)
    starts = np.cumsum(totals) - totals + np.cumsum(grid, axis=0) - grid
    least = int(totals.min())
    field_bits = int(totals.max() - least).bit_length()
    if field_bits > MAX_FIELD_BITS:
        raise ValueError("The lanes of a Huffman stream differ too much in length.")
    sizes = pack_bits(totals - least, np.full(width, field_bits), np.arange(width) * field_bits, width * field_bits)
    body = pack_bits(codes, lengths, starts.ravel()[: len(codes)], int(totals.sum()))
    return encode_varint(least) + bytes([field_bits]) + sizes + body


def read_stream(cursor: Cursor, tables: list[np.ndarray], counts: list[int]) -> list[np.ndarray]:
    """Decodes a stream, which fills the rest of its section.

    Args:
        cursor: Cursor at the stream.
        tables: Uint8 (alphabet,) code lengths of each table, already checked.
        counts: Number of symbols that each table codes.

    Returns:
        Int32 (count,) symbols of each table.

    Raises:
        SqzError: The stream is malformed.
    """
    coded = [number for number, table in enumerate(tables) if np.count_nonzero(table) > 1]
    total = sum(counts[number] for number in coded)
    width, start = lane_count(total), cursor.offset
    least, field_bits = cursor.varint(), cursor.uint(1)
    if field_bits > MAX_FIELD_BITS:
        raise TableError(f"Lane lengths have {field_bits} bits; at most {MAX_FIELD_BITS} are allowed", start)
    sizes = _read_fields(cursor, width, field_bits)
    if field_bits and (sizes.min() or int(sizes.max()).bit_length() != field_bits):
        raise PaddingError("Lane lengths are written with more bits than they need", start)
    ends = np.cumsum(sizes + least)
    start, size = cursor.offset, int(ends[-1])
    body = cursor.take((size + 7) // 8)
    if size % 8 and body[-1] & (255 >> size % 8):
        raise PaddingError("The bits after the last lane must be 0", start + len(body) - 1)
    cursor.finish()
    if total > size:
        raise StreamError(f"{size} bits are too few for {total} symbols", start)
    coded_counts = [counts[number] for number in coded]
    symbols = _decode_lanes(body, ends, [tables[number] for number in coded], coded_counts, start)
    parts = dict(zip(coded, np.split(symbols, np.cumsum(coded_counts)), strict=False))
    return [
        parts[number] if number in parts else np.full(count, np.argmax(table) if count else 0, np.int32)
        for number, (table, count) in enumerate(zip(tables, counts, strict=True))
    ]


def _read_fields(cursor: Cursor, count: int, bits: int) -> np.ndarray:
    """Reads `count` fields of `bits` bits, padded with 0 bits to a whole byte, as int64 (count,)."""
    start, raw = cursor.offset, cursor.take((count * bits + 7) // 8)
    if not bits:
        return np.zeros(count, np.int64)
    unpacked = np.unpackbits(np.frombuffer(raw, np.uint8))
    if unpacked[count * bits :].any():
        raise PaddingError("The bits after the lane lengths must be 0", start + len(raw) - 1)
    return unpacked[: count * bits].reshape(count, bits).astype(np.int64) @ (1 << np.arange(bits)[::-1])


def _decode_lanes(
    body: bytes, ends: np.ndarray, tables: list[np.ndarray], counts: list[int], offset: int
) -> np.ndarray:
    """Decodes all lanes in lockstep.

    Args:
        body: The bits of the lanes.
        ends: Int64 (lanes,), the bit position at which each lane ends.
        tables: Uint8 (alphabet,) code lengths of each table.
        counts: Number of symbols that each table codes.
        offset: Byte of the file to report in errors.

    Returns:
        Int32 (sum of counts,) symbols, in the order of the tables.

    Raises:
        StreamError: A lane does not end at its declared end.
    """
    total, width = sum(counts), len(ends)
    lookup = np.zeros((len(tables) + 1, 1 << MAX_LENGTH), np.uint16)  # 64 KiB a table; the last is for unused slots
    for number, lengths in enumerate(tables):
        lookup[number] = _lookup(lengths)
    steps = -(-total // width)
    table_starts = np.full(steps * width, len(tables) << MAX_LENGTH, np.int32)  # unused slots decode 0 bits
    table_starts[:total] = np.repeat(np.arange(len(tables), dtype=np.int32) << MAX_LENGTH, counts)
    table_starts = table_starts.reshape(steps, width)
    windows = bit_windows(body)
    positions = np.concatenate([[0], ends[:-1]])
    entries = np.zeros((steps, width), np.uint16)
    for index, entry in zip(table_starts, entries, strict=True):
        window = windows.take(positions >> 3, mode="clip") << (positions & 7).astype(np.uint32)
        index += (window >> (32 - MAX_LENGTH)).astype(np.int32)
        lookup.take(index, out=entry)
        positions += entry & 15
    if (positions != ends).any():
        raise StreamError("A lane of the Huffman stream does not end at its declared end", offset)
    return (entries.ravel()[:total] >> 4).astype(np.int32)


def _lookup(lengths: np.ndarray) -> np.ndarray:
    """Returns uint16 (2**15,): `symbol << 4 | bits`, indexed by the next 15 bits; symbols are below 4096."""
    used = np.flatnonzero(lengths)
    order = used[np.argsort(lengths[used], kind="stable")]
    bits = lengths[order].astype(np.int32)
    return np.repeat((order << 4 | bits).astype(np.uint16), 1 << (MAX_LENGTH - bits))
