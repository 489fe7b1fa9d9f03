"""Reads a request's tensors. They are compared with the signature before memory of the declared size is allocated."""

from __future__ import annotations

import math

import numpy as np
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from export import contract
from export.server.errors import invalid
from export.server.large_request import ParsedRequest


def read_inputs(signature: meta_graph_pb2.SignatureDef, request: ParsedRequest) -> dict[str, np.ndarray]:
    """A request's tensors by input name.

    Raises:
        RequestError: INVALID_ARGUMENT: the tensors do not match the signature, or are too large.
    """
    sent = request.message.inputs
    if set(sent) != set(signature.inputs):
        raise invalid(f"Expected the inputs {sorted(signature.inputs)}, got {sorted(sent)!s:.200}.")
    return {
        name: _read(name, signature.inputs[name], proto, request.contents.get(name)) for name, proto in sent.items()
    }


def check_batch(count: int) -> None:
    """Refuses a batch larger than the contract allows, since the network's input is far larger than a request.

    Raises:
        RequestError: INVALID_ARGUMENT: the batch is empty or too large.
    """
    if not 1 <= count <= contract.MAX_BATCH_SIZE:
        raise invalid(f"Expected 1 to {contract.MAX_BATCH_SIZE} images in a call, got {count}.")


def _read(name: str, info: meta_graph_pb2.TensorInfo, proto, content: memoryview | None) -> np.ndarray:
    if proto.dtype != info.dtype:
        has_name = proto.dtype in types_pb2.DataType.values()
        actual = types_pb2.DataType.Name(proto.dtype) if has_name else proto.dtype
        raise invalid(f"Input {name!r}: expected {types_pb2.DataType.Name(info.dtype)}, got {actual}.")
    shape = [dim.size for dim in proto.tensor_shape.dim]
    expected = [dim.size for dim in info.tensor_shape.dim]
    fits = len(shape) == len(expected) and all(
        required in (-1, size) for required, size in zip(expected, shape, strict=True)
    )
    if proto.tensor_shape.unknown_rank or not fits or min(shape, default=1) < 1:
        raise invalid(f"Input {name!r}: expected the shape {expected} (-1: 1 or more), got {shape!s:.200}.")
    check_batch(shape[0])
    if proto.dtype == types_pb2.DT_STRING:
        if content or proto.tensor_content:
            raise invalid(f"Input {name!r}: send strings in string_val, not in tensor_content.")
        return _values(name, proto.string_val, object, b"", shape)
    if proto.dtype != types_pb2.DT_FLOAT:
        raise invalid(f"Input {name!r}: this server takes float and string tensors alone.")
    if 4 * math.prod(shape) > contract.MAX_MESSAGE_BYTES:
        raise invalid(f"Input {name!r}: at most {contract.MAX_MESSAGE_BYTES} bytes, got the shape {shape}.")
    content = content or proto.tensor_content  # every access copies it
    if not content:
        return _values(name, proto.float_val, np.float32, 0.0, shape)
    if len(content) != 4 * math.prod(shape):
        raise invalid(f"Input {name!r}: {len(content)} bytes are not a float tensor of the shape {shape}.")
    return np.frombuffer(content, "<f4").reshape(shape)


def _values(name: str, sent, dtype, default, shape: list[int]) -> np.ndarray:
    """Values that are listed one by one. The last stands for all that were left out, as tensor.proto says."""
    count = math.prod(shape)
    if len(sent) > count:
        raise invalid(f"Input {name!r}: {len(sent)} values are too many for the shape {shape}.")
    values = np.full(count, sent[-1] if sent else default, dtype)
    values[: len(sent)] = sent
    return values.reshape(shape)
