"""Protocol Buffers' wire format, read field by field without building objects, so that no file can use much memory."""

from __future__ import annotations

import os
from collections.abc import Iterator

from sqz_keras.weights.arrays import WeightsFileError

MAX_FIELDS = 100_000  # of one file; a SqueezeNet has some thousand
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED = {FIXED64: 8, FIXED32: 4}


class WireReader:
    """Walks the messages of one file; the number of fields is bounded over all of them.

    Args:
        path: named in errors.
    """

    def __init__(self, path: str | os.PathLike):
        self._path = path
        self._left = MAX_FIELDS

    def fields(self, message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
        """Yields (field number, wire type, value): an unsigned int for a varint, else the bytes without a length.

        Raises:
            WeightsFileError: the bytes are no message, or the file has more than `MAX_FIELDS` fields.
        """
        at = 0
        while at < len(message):
            self._left -= 1
            if self._left < 0:
                raise WeightsFileError(f"{self._path}: more than {MAX_FIELDS} fields; this is no SqueezeNet.")
            key, at = self._varint(message, at)
            number, wire_type = key >> 3, key & 7
            if number == 0:
                raise WeightsFileError(f"{self._path}: a field has the number 0; the file is damaged.")
            if wire_type == VARINT:
                value, at = self._varint(message, at)
                yield number, wire_type, value
                continue
            if wire_type == BYTES:
                size, at = self._varint(message, at)
            elif wire_type in _FIXED:
                size = _FIXED[wire_type]
            else:
                raise WeightsFileError(f"{self._path}: unknown wire type {wire_type}; the file is damaged.")
            if size > len(message) - at:
                raise WeightsFileError(f"{self._path}: a field of {size} bytes passes the end; the file is truncated.")
            yield number, wire_type, message[at : at + size]
            at += size

    def varints(self, wire_type: int, value: int | memoryview) -> list[int]:
        """The values of a repeated integer field's occurrence: one, or several packed.

        Raises:
            WeightsFileError: the field is of another type, or holds more than 16 values.
        """
        if wire_type == VARINT:
            return [value]
        if wire_type != BYTES or len(value) > 160:
            raise WeightsFileError(f"{self._path}: expected a short list of integers; the file is damaged.")
        values, at = [], 0
        while at < len(value):
            item, at = self._varint(value, at)
            values.append(item)
        return values

    def _varint(self, message: memoryview, at: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if at >= len(message):
                raise WeightsFileError(f"{self._path}: ends inside a number; the file is truncated.")
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, at
        raise WeightsFileError(f"{self._path}: a number of more than 10 bytes; the file is damaged.")
