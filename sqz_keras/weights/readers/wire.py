"""A weights file in the format of Protocol Buffers, read field by field."""

from __future__ import annotations

import os
from collections.abc import Iterator

from sqz_keras.protobuf import BYTES, VARINT, read_fields, read_varint
from sqz_keras.weights.arrays import WeightsFileError

MAX_FIELDS = 100_000  # in one file; a SqueezeNet has a few thousand


class WireReader:
    """Walks the messages of one file; the number of fields in all of them together is bounded.

    Args:
        path: named in errors.
    """

    def __init__(self, path: str | os.PathLike):
        self._path = path
        self._left = MAX_FIELDS

    def fields(self, message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
        """Yields (field number, wire type, value): an unsigned int for a varint, else the bytes without their length.

        Raises:
            WeightsFileError: the bytes are not a message, or the file has more than `MAX_FIELDS` fields.
        """
        try:
            for number, wire_type, value, _, _ in read_fields(message):
                self._left -= 1
                if self._left < 0:
                    raise WeightsFileError(f"{self._path}: more than {MAX_FIELDS} fields; this is not a SqueezeNet.")
                yield number, wire_type, value
        except WeightsFileError:
            raise
        except ValueError as error:
            raise WeightsFileError(f"{self._path}: {error} Fetch or save it again.") from None

    def inner(self, message: memoryview, number: int, *numbers: int) -> Iterator[memoryview]:
        """Yields the messages, strings or bytes in a field, or at the end of a path of nested fields, in order."""
        for field, wire_type, value in self.fields(message):
            if field == number and wire_type == BYTES:
                yield from self.inner(value, *numbers) if numbers else (value,)

    def varints(self, wire_type: int, value: int | memoryview) -> list[int]:
        """The values in one occurrence of a repeated integer field: one, or several packed ones.

        Raises:
            WeightsFileError: the field is of another type, or holds more than 16 values.
        """
        if wire_type == VARINT:
            return [value]
        if wire_type != BYTES or len(value) > 160:
            raise WeightsFileError(f"{self._path}: expected a short list of integers; the file is damaged.")
        values, at = [], 0
        try:
            while at < len(value):
                item, at = read_varint(value, at)
                values.append(item)
        except ValueError as error:
            raise WeightsFileError(f"{self._path}: {error} Fetch or save it again.") from None
        return values
