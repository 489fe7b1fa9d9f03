"""The small binary fields of a `.sqz` file: integers, varints, zlib streams and bit fields."""

from __future__ import annotations

import zlib

import numpy as np

from sqz_keras.codec.errors import PaddingError, StreamError, TooLargeError, TrailingBytesError, TruncatedError

MAX_VARINT = (1 << 35) - 1


class Cursor:
    """Reads a part of a file from front to back, and never past the end of the part.

    Args:
        data: The whole file.
        start: Index of the first byte of the part.
        end: Index of the byte after the part; the end of the file if None.
    """

    def __init__(self, data: bytes, start: int = 0, end: int | None = None):
        self._data = data
        self.offset = start
        self.end = len(data) if end is None else end

    def take(self, count: int) -> bytes:
        """Reads the next `count` bytes."""
        if count > self.end - self.offset:
            raise TruncatedError(f"Expected {count} more bytes, got {self.end - self.offset}", self.offset)
        self.offset += count
        return self._data[self.offset - count : self.offset]

    def rest(self) -> bytes:
        """Reads all remaining bytes."""
        return self.take(self.end - self.offset)

    def uint(self, size: int) -> int:
        """Reads an unsigned little-endian integer of `size` bytes."""
        return int.from_bytes(self.take(size), "little")

    def varint(self) -> int:
        """Reads an unsigned integer: 7 bits per byte, low bits first; the high bit of every byte but the last is 1."""
        start, value = self.offset, 0
        for shift in range(0, 35, 7):
            byte = self.uint(1)
            value |= (byte & 127) << shift
            if byte < 128:
                if byte == 0 and shift:
                    raise PaddingError("A number is written with more bytes than it needs", start)
                return value
        raise TooLargeError("A number has more than 35 bits", start)

    def finish(self) -> None:
        """Raises `TrailingBytesError` if bytes are left over."""
        if self.offset != self.end:
            raise TrailingBytesError(f"{self.end - self.offset} bytes too many", self.offset)


def encode_varint(value: int) -> bytes:
    """Returns the bytes that `Cursor.varint` reads."""
    if not 0 <= value <= MAX_VARINT:
        raise ValueError(f"varint: expected 0 to {MAX_VARINT}, got {value}.")
    result = bytearray()
    while value > 127:
        result.append(value & 127 | 128)
        value >>= 7
    return bytes([*result, value])


def inflate(data: bytes, limit: int, offset: int, dictionary: bytes = b"") -> bytes:
    """Inflates a zlib stream that must fill `data` to its last byte.

    Args:
        data: The stream.
        limit: Maximum number of inflated bytes.
        offset: Position of the stream in the file, for errors.
        dictionary: The preset dictionary that the stream may use; if empty, the stream must not need one.

    Raises:
        SqzError: The stream is damaged, too short, too long, or inflates to more than `limit` bytes.
    """
    decompressor = zlib.decompressobj(**({"zdict": dictionary} if dictionary else {}))
    try:
        result = decompressor.decompress(data, limit + 1)
    except zlib.error as error:
        raise StreamError(f"Damaged zlib stream: {error}", offset) from None
    if len(result) > limit:
        raise TooLargeError(f"A zlib stream inflates to more than {limit} bytes", offset)
    if not decompressor.eof:
        raise TruncatedError("A zlib stream ends too early", offset)
    if decompressor.unused_data:
        raise TrailingBytesError(f"{len(decompressor.unused_data)} bytes follow a zlib stream", offset)
    return result


def pack_bits(values: np.ndarray, widths: np.ndarray, starts: np.ndarray, total: int) -> bytes:
    """Writes bit fields at given positions, most significant bit first; all other bits are 0.

    Args:
        values: Unsigned integers (n,), each below 2**width.
        widths: Integers (n,), the bits of each field, at most 17.
        starts: Integers (n,), the bit position of each field; the fields do not overlap.
        total: Number of bits in the result; the last byte is padded with 0 bits.
    """
    size = (total + 7) // 8
    byte = starts >> 3
    window = values.astype(np.int64) << (24 - widths.astype(np.int64) - (starts & 7))
    summed = np.zeros(size + 3)
    for part in range(3):
        summed += np.bincount(byte + part, (window >> (16 - 8 * part)) & 255, minlength=size + 3)
    return summed[:size].astype(np.uint8).tobytes()


def bit_windows(data: bytes) -> np.ndarray:
    """Returns uint32 (bytes + 1,): the 32 bits that begin at each byte, most significant first, 0 beyond the end."""
    padded = np.frombuffer(data + bytes(4), np.uint8).astype(np.uint32)
    count = len(data) + 1
    return padded[:count] << 24 | padded[1:][:count] << 16 | padded[2:][:count] << 8 | padded[3:][:count]
