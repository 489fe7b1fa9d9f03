"""Reads a Predict request without copying its one large array; protobuf would copy the array's values twice.

A batch of 32 images has 20 MB, and copying it takes longer than receiving it from the same machine. Only the usual form
is split here, one input with one field of content; everything else is left to protobuf.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import NamedTuple

from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2

from sqz_keras.protobuf import BYTES, read_fields

_LARGE = 1 << 16  # bytes; splitting off less is not worth the trouble
_MOST_FIELDS = 100  # in the usual form of a message; a long loop in Python would hold up the server
_Entry = predict_pb2.PredictRequest.InputsEntry
# Field numbers.
_INPUTS = predict_pb2.PredictRequest.INPUTS_FIELD_NUMBER
_KEY, _VALUE = 1, 2  # of every map's entries
_CONTENT = tensor_pb2.TensorProto.TENSOR_CONTENT_FIELD_NUMBER


class ParsedRequest(NamedTuple):
    """A Predict request in two parts.

    Args:
        message: The request without `contents`.
        contents: The `tensor_content` of inputs by name.
    """

    message: predict_pb2.PredictRequest
    contents: Mapping[str, memoryview] = types.MappingProxyType({})


def parse(data: bytes) -> ParsedRequest:
    """Reads a request as gRPC received it.

    Raises:
        google.protobuf.message.DecodeError: The data are not a PredictRequest.
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
    """The bytes of a message's field `number`, and all other fields; None unless it has exactly one such field."""
    found = None
    try:
        for count, field in enumerate(read_fields(message)):
            if count == _MOST_FIELDS:
                return None
            if field.number == number:
                if found or field.wire_type != BYTES:
                    return None
                found = field
    except ValueError:
        return None
    return found and _Split(found.value, b"".join([message[: found.start], message[found.end :]]))
