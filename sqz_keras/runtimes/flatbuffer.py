"""Writes FlatBuffers from plain values: a table is a dict from the schema's field numbers to values."""

from __future__ import annotations

import flatbuffers
import numpy as np
from flatbuffers import number_types

_SCALARS = {
    np.dtype(np.bool_): number_types.BoolFlags,
    np.dtype(np.int8): number_types.Int8Flags,
    np.dtype(np.uint8): number_types.Uint8Flags,
    np.dtype(np.int32): number_types.Int32Flags,
    np.dtype(np.uint32): number_types.Uint32Flags,
    np.dtype(np.float32): number_types.Float32Flags,
}
_ALIGNMENT = 16  # of a vector of bytes, in bytes; runtimes use these vectors in place, without a copy
_SPARE = 1 << 16  # bytes for everything but the vectors of bytes; the builder grows if that is too little


def write_root(table: dict[int, object], identifier: bytes, data_bytes: int) -> bytes:
    """The file whose root is a table.

    Args:
        table: Values by field number: a NumPy scalar of the field's type, a string, bytes (a vector of `ubyte`), an
            array (a vector of its type), another table, or a list of tables. Fields that are left out have the
            defaults of the schema.
        identifier: The four letters that mark files of the schema.
        data_bytes: About how many bytes all vectors of bytes have together.
    """
    builder = flatbuffers.Builder(data_bytes + _SPARE)
    builder.Finish(_write(builder, table), file_identifier=identifier)
    return bytes(builder.Output())


def _write(builder: flatbuffers.Builder, value: object) -> int:
    """Writes a value that is not a scalar, after everything that it refers to, and returns its offset."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, bytes):
        return _write_bytes(builder, value)
    if isinstance(value, np.ndarray):
        return builder.CreateNumpyVector(value)
    if isinstance(value, list):
        offsets = [_write(builder, item) for item in value]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()
    return _write_table(builder, value)


def _write_table(builder: flatbuffers.Builder, table: dict[int, object]) -> int:
    offsets = {slot: _write(builder, value) for slot, value in table.items() if not isinstance(value, np.generic)}
    builder.StartObject(max(table, default=-1) + 1)
    for slot, value in table.items():
        if slot in offsets:
            builder.PrependUOffsetTRelativeSlot(slot, offsets[slot], 0)
        else:
            builder.PrependSlot(_SCALARS[value.dtype], slot, value.item(), None)
    return builder.EndObject()


def _write_bytes(builder: flatbuffers.Builder, data: bytes) -> int:
    """Like the builder's CreateByteVector, which aligns to only one byte."""
    builder.StartVector(1, len(data), _ALIGNMENT)
    builder.head -= len(data)
    builder.Bytes[builder.head : builder.head + len(data)] = data
    return builder.EndVector()
