"""A Predict request whose one large array is not copied: protobuf would copy its values twice.

A batch of 32 images has 20 MB, and copying it takes longer than receiving it from the same machine. Only the usual form
is cut up here, one input with one field of content; everything else is left to protobuf.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import NamedTuple

from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2

_LARGE = 1 << 16  # bytes; less is not worth the trouble
_Entry = predict_pb2.PredictRequest.InputsEntry
# Field numbers.
_INPUTS = predict_pb2.PredictRequest.INPUTS_FIELD_NUMBER
_KEY, _VALUE = 1, 2  # of every map's entries
_CONTENT = tensor_pb2.TensorProto.TENSOR_CONTENT_FIELD_NUMBER
# What a field's key says about its bytes: https://protobuf.dev/programming-guides/encoding/
_VARINT, _WITH_LENGTH, _FIXED = 0, 2, {1: 8, 5: 4}


class ParsedRequest(NamedTuple):
    """A Predict request in two parts.

    Args:
        message: The request; `contents` is left out of it.
        contents: The `tensor_content` of inputs by name.
    """

    message: predict_pb2.PredictRequest
    contents: Mapping[str, memoryview] = types.MappingProxyType({})


def parse(data: bytes) -> ParsedRequest:
    """Reads a request as gRPC received it.

    Raises:
        google.protobuf.message.DecodeError: It is no PredictRequest.
    """
    request = _split(memoryview(data), _INPUTS)
    entry = request and _split(request.field, _VALUE)
    key = entry and _split(memoryview(entry.others), _KEY)
    tensor = entry and _split(entry.field, _CONTENT)
    if not (key and tensor) or key.others or len(tensor.field) < _LARGE:
        return ParsedRequest(predict_pb2.PredictRequest.FromString(data))
    message, name = predict_pb2.PredictRequest.FromString(request.others), _Entry.FromString(entry.others).key
    message.inputs[name].ParseFromString(tensor.others)
    return ParsedRequest(message, {name: tensor.field})


class _Split(NamedTuple):
    field: memoryview
    others: bytes


def _split(message: memoryview, number: int) -> _Split | None:
    """The bytes of a message's field of this number, and all its other fields; None if it has not one such field."""
    position, found = 0, None
    try:
        while position < len(message):
            key, begin = _read_varint(message, position)
            kind = key & 7
            length, begin = _read_varint(message, begin) if kind == _WITH_LENGTH else (0, begin)
            end = _read_varint(message, begin)[1] if kind == _VARINT else begin + length + _FIXED.get(kind, 0)
            if kind not in (_VARINT, _WITH_LENGTH, *_FIXED) or end > len(message):
                return None
            if key >> 3 == number:
                if found or kind != _WITH_LENGTH:
                    return None
                found = position, begin, end
            position = end
    except IndexError:  # cut off
        return None
    if found is None:
        return None
    start, begin, end = found
    return _Split(message[begin:end], b"".join([message[:start], message[end:]]))


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the lowest first, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise IndexError("no varint")
