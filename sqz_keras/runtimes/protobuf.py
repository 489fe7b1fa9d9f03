"""Writing Protocol Buffers from plain values: messages are dicts by the numbers of their fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_VARINT, _BYTES = 0, 2  # wire types


def write_message(fields: Mapping[int, object]) -> bytes:
    """The bytes of a message.

    Args:
        fields: By the number of a field, in the order to write: an integer of at least 0 (any integer type or enum),
            a string, bytes, another message, or a list of these for a repeated field, which is not packed.
    """
    return b"".join(_parts(fields))


def _parts(fields: Mapping[int, object]) -> Iterator[bytes]:
    for number, value in fields.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, int):
                yield _varint(number << 3 | _VARINT) + _varint(item)
                continue
            data = (
                write_message(item) if isinstance(item, Mapping) else item.encode() if isinstance(item, str) else item
            )
            yield begin_field(number, len(data))
            yield data


def begin_field(number: int, length: int) -> bytes:
    """What comes before the bytes of a string, bytes or message field."""
    return _varint(number << 3 | _BYTES) + _varint(length)


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    data.append(value)
    return bytes(data)
