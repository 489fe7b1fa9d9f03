"""ONNX models whose convolutions carry the releases' names, as the authors' v1.1 in float16 does."""

from __future__ import annotations

import math
import os
import re
import typing

import numpy as np

from sqz_keras.weights.arrays import (
    WeightsFileError,
    check_declared,
    check_kernel_rank,
    float32_arrays,
    hwio,
    layer_name,
    read_bytes,
    refuse,
)
from sqz_keras.weights.readers.wire import BYTES, WireReader

if typing.TYPE_CHECKING:
    import onnx

_INPUT = re.compile(r"(.+)_([wb])_0")
_PART = {"w": "kernel", "b": "bias"}
# Field numbers of onnx.proto: the graph of a model, a graph's initializers, and where a tensor keeps its values.
_GRAPH, _INITIALIZER, _VALUES = 7, 5, (4, 5, 9, 10)
_MAX_STRUCTURE_BYTES = 1 << 20


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the weights that the Conv nodes of an ONNX graph use; nothing is run and no other file is opened.

    The names of the layers are those of the nodes' inputs, "fire2/squeeze1x1_w_0" and "fire2/squeeze1x1_b_0".

    Returns:
        float32 arrays by name, kernels HWIO, in net order.

    Raises:
        WeightsFileError: the file is damaged or too large, keeps its weights in another file, or has weights that no
            SqueezeNet has.
    """
    import onnx
    from google.protobuf.message import DecodeError

    data = read_bytes(path)
    _check_structure(path, data)
    # A name that is not UTF-8 comes back as bytes: a TypeError.
    with refuse(path, DecodeError, UnicodeDecodeError, TypeError):
        graph = onnx.ModelProto.FromString(data).graph
        weights = _weights(path, graph)
    check_declared(path, {name: tuple(tensor.dims) for name, tensor in weights.items()})
    arrays = {}
    for name, tensor in weights.items():
        array = _array(path, name, tensor)
        arrays[name] = hwio(array) if array.ndim == 4 else array
    return float32_arrays(path, arrays)


def _check_structure(path: str | os.PathLike, data: bytes) -> None:
    """Bounds all that is not a tensor's values: parsed, an empty message takes far more memory than its two bytes."""
    reader, structure = WireReader(path), len(data)
    for number, wire_type, graph in reader.fields(memoryview(data)):
        if number == _GRAPH and wire_type == BYTES:
            for field, field_type, tensor in reader.fields(graph):
                if field == _INITIALIZER and field_type == BYTES:
                    values = [value for key, kind, value in reader.fields(tensor) if key in _VALUES and kind == BYTES]
                    structure -= sum(len(value) for value in values)
    if structure > _MAX_STRUCTURE_BYTES:
        raise WeightsFileError(
            f"{path}: {structure} bytes that are no weights; at most {_MAX_STRUCTURE_BYTES} are read."
        )


def _weights(path: str | os.PathLike, graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """The tensors behind the inputs of the Conv nodes, by our names."""
    import onnx

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    if len(tensors) != len(graph.initializer):
        raise WeightsFileError(f"{path}: two initializers have the same name.")
    weights, used = {}, set()
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        if len(node.input) != 3:
            raise WeightsFileError(f"{path}: a Conv must have a kernel and a bias, got inputs {list(node.input)}.")
        for tensor_name, part in zip(node.input[1:], "wb", strict=True):
            match = _INPUT.fullmatch(tensor_name)
            layer = layer_name(match[1]) if match and match[2] == part else None
            if layer is None or tensor_name not in tensors:
                raise WeightsFileError(
                    f"{path}: a Conv's input {tensor_name!r} is not the weight of a SqueezeNet; expected initializers "
                    "named like 'fire2/squeeze1x1_w_0' and 'fire2/squeeze1x1_b_0'."
                )
            if tensor_name in used:
                raise WeightsFileError(f"{path}: two Conv nodes share {tensor_name!r}.")
            used.add(tensor_name)
            weights[f"{layer}/{_PART[part]}"] = tensors[tensor_name]
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16)
    unused = [name for name, tensor in tensors.items() if name not in used and tensor.data_type in floats]
    if unused:
        raise WeightsFileError(f"{path}: {len(unused)} weights belong to no convolution, {unused[0]!r} for one.")
    return weights


def _array(path: str | os.PathLike, name: str, tensor: onnx.TensorProto) -> np.ndarray:
    """A tensor's values, in the file's layout, once its length is known to be what its shape says."""
    import onnx

    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        raise WeightsFileError(f"{path}: {name} is kept in another file; save the model with its weights inside.")
    fields = {
        onnx.TensorProto.FLOAT: (4, tensor.float_data),
        onnx.TensorProto.DOUBLE: (8, tensor.double_data),
        onnx.TensorProto.FLOAT16: (2, tensor.int32_data),
        onnx.TensorProto.BFLOAT16: (2, tensor.int32_data),
    }
    if tensor.data_type not in fields:
        raise WeightsFileError(
            f"{path}: {name} must be float16, bfloat16, float32 or float64 (data type in the file: "
            f"{tensor.data_type}); quantised models are not read."
        )
    itemsize, values = fields[tensor.data_type]
    check_kernel_rank(path, name, tensor.dims)
    stored = len(tensor.raw_data) // itemsize if len(tensor.raw_data) % itemsize == 0 else -1
    if not tensor.HasField("raw_data"):
        stored = len(values)
    if stored != math.prod(tensor.dims):
        raise WeightsFileError(f"{path}: {name} of shape {list(tensor.dims)} has {stored} values.")
    with refuse(path, ValueError, OverflowError):
        return onnx.numpy_helper.to_array(tensor)
