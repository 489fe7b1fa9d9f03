"""Protocol Buffers' wire format, from and to plain values.

Reading builds no objects, so no file can make it use much memory. The format is specified at
https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

# Wire types.
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED = {FIXED64: 8, FIXED32: 4}
_MOST_VARINT = 10  # bytes


class Field(NamedTuple):
    """A field of a message.

    Args:
        number: At least 1.
        wire_type: VARINT, FIXED64, BYTES or FIXED32.
        value: An unsigned int for a varint, otherwise the bytes without their length.
        start: Where the field begins in its message.
        end: The position after it.
    """

    number: int
    wire_type: int
    value: int | memoryview
    start: int
    end: int


def read_fields(message: memoryview) -> Iterator[Field]:
    """The fields of a message, in order. Groups, which are deprecated, are refused.

    Raises:
        ValueError: The bytes are not a message.
    """
    at = 0
    while at < len(message):
        start = at
        key, at = read_varint(message, at)
        number, wire_type = key >> 3, key & 7
        if number == 0:
            raise ValueError("a field has the number 0; the file is damaged.")
        if wire_type == VARINT:
            value, at = read_varint(message, at)
        else:
            if wire_type == BYTES:
                size, at = read_varint(message, at)
            elif wire_type in _FIXED:
                size = _FIXED[wire_type]
            else:
                raise ValueError(f"unknown wire type {wire_type}; the file is damaged.")
            if size > len(message) - at:
                raise ValueError(f"a field of {size} bytes passes the end; the file is truncated.")
            value = message[at : at + size]
            at += size
        yield Field(number, wire_type, value, start, at)


def read_varint(message: memoryview, at: int) -> tuple[int, int]:
    """An unsigned number, stored as 7 bits a byte with the lowest first, and the position after it.

    Raises:
        ValueError: The bytes end inside it, or it has more than 10.
    """
    value = 0
    for shift in range(0, 7 * _MOST_VARINT, 7):
        if at >= len(message):
            raise ValueError("ends inside a number; the file is truncated.")
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError(f"a number of more than {_MOST_VARINT} bytes; the file is damaged.")


def write_message(fields: Mapping[int, object]) -> bytes:
    """The bytes of a message.

    Args:
        fields: Values by field number, in the order to write them: an integer of at least 0 (any integer type or enum),
            a string, bytes, another message, or a list of these for a repeated field, which is not packed.
    """
    return b"".join(_parts(fields))


def _parts(fields: Mapping[int, object]) -> Iterator[bytes]:
    for number, value in fields.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, int):
                yield _varint(number << 3 | VARINT) + _varint(item)
                continue
            data = (
                write_message(item) if isinstance(item, Mapping) else item.encode() if isinstance(item, str) else item
            )
            yield begin_field(number, len(data))
            yield data


def begin_field(number: int, length: int) -> bytes:
    """What comes before the bytes of a string, bytes or message field."""
    return _varint(number << 3 | BYTES) + _varint(length)


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    data.append(value)
    return bytes(data)
