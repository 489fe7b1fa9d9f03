"""Reading and writing the small binary fields of a `.sqz` file."""

from __future__ import annotations

import zlib

import numpy as np

from sqz_keras.codec.errors import PaddingError, StreamError, TooLargeError, TrailingBytesError, TruncatedError

MAX_VARINT = (1 << 35) - 1


class Cursor:
    """Reads a part of a file from front to back and never beyond its end.

    Args:
        data: the whole file.
        start: first byte of the part.
        end: the byte behind it.
    """

    def __init__(self, data: bytes, start: int = 0, end: int | None = None):
        self._data = data
        self.offset = start
        self.end = len(data) if end is None else end

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if count > self.end - self.offset:
            raise TruncatedError(f"Expected {count} more bytes, found {self.end - self.offset}", self.offset)
        self.offset += count
        return self._data[self.offset - count : self.offset]

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(self.end - self.offset)

    def uint(self, size: int) -> int:
        """An unsigned integer of `size` bytes, little-endian."""
        return int.from_bytes(self.take(size), "little")

    def varint(self) -> int:
        """An unsigned integer, 7 bits a byte, the low ones first; the high bit of each byte but the last is 1."""
        start, value = self.offset, 0
        for shift in range(0, 35, 7):
            byte = self.uint(1)
            value |= (byte & 127) << shift
            if byte < 128:
                if byte == 0 and shift:
                    raise PaddingError("A number is written longer than it needs to be", start)
                return value
        raise TooLargeError("A number of more than 35 bits", start)

    def finish(self) -> None:
        """Refuses bytes that are left over."""
        if self.offset != self.end:
            raise TrailingBytesError(f"{self.end - self.offset} bytes too many", self.offset)


def varint(value: int) -> bytes:
    """The bytes that `Cursor.varint` reads."""
    if not 0 <= value <= MAX_VARINT:
        raise ValueError(f"varint: expected 0 to {MAX_VARINT}, got {value}.")
    result = bytearray()
    while value > 127:
        result.append(value & 127 | 128)
        value >>= 7
    return bytes([*result, value])


def inflate(data: bytes, limit: int, offset: int) -> bytes:
    """The zlib stream that `data` is, to its last byte, of at most `limit` bytes inflated.

    Args:
        data: the stream.
        limit: refuse more than this.
        offset: where it lies in the file, for errors.
    """
    machine = zlib.decompressobj()
    try:
        result = machine.decompress(data, limit + 1)
    except zlib.error as error:
        raise StreamError(f"Damaged zlib stream: {error}", offset) from None
    if len(result) > limit:
        raise TooLargeError(f"A zlib stream of more than {limit} bytes", offset)
    if not machine.eof:
        raise TruncatedError("A zlib stream ends too early", offset)
    if machine.unused_data:
        raise TrailingBytesError(f"{len(machine.unused_data)} bytes behind a zlib stream", offset)
    return result


def pack_bits(values: np.ndarray, widths: np.ndarray, starts: np.ndarray, total: int) -> bytes:
    """Bit fields, most significant bit first, each at its place; the rest is 0.

    Args:
        values: (n,) unsigned, each below 2**width.
        widths: (n,) at most 17 bits each.
        starts: (n,) bit positions; the fields do not overlap.
        total: bits in all; the last byte is filled up with 0.
    """
    size = (total + 7) // 8
    byte = starts >> 3
    window = values.astype(np.int64) << (24 - widths.astype(np.int64) - (starts & 7))
    summed = np.zeros(size + 3)
    for part in range(3):
        summed += np.bincount(byte + part, (window >> (16 - 8 * part)) & 255, minlength=size + 3)
    return summed[:size].astype(np.uint8).tobytes()


def bit_windows(data: bytes) -> np.ndarray:
    """(bytes + 1,) uint32: the 32 bits that begin at each byte, most significant first, 0 beyond the end."""
    padded = np.frombuffer(data + bytes(4), np.uint8).astype(np.uint32)
    count = len(data) + 1
    return padded[:count] << 24 | padded[1:][:count] << 16 | padded[2:][:count] << 8 | padded[3:][:count]
