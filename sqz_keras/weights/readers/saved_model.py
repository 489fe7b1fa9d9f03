"""A SavedModel folder of this project: only the constants of its graph are read, and nothing is loaded or run."""

from __future__ import annotations

import math
import os
import re

import numpy as np

from sqz_keras.architecture.spec import MAX_JSON_BYTES
from sqz_keras.protobuf import BYTES, VARINT
from sqz_keras.weights.arrays import WeightsFileError, check_declared, float32_arrays, read_bytes
from sqz_keras.weights.description import SPEC_KEY, Stated, parse_spec
from sqz_keras.weights.readers.wire import WireReader

_NAME = re.compile(rb"([a-z0-9_]+)/(kernel|bias)")
_FLOAT = 1  # TensorFlow's DT_FLOAT
# Field numbers of saved_model.proto and its messages: the path to the operations of the graph's functions.
_META_GRAPHS, _GRAPH, _LIBRARY, _FUNCTION, _NODE = 2, 2, 2, 1, 3
_NODE_NAME, _NODE_OP, _NODE_ATTR = 1, 2, 5
_KEY, _VALUE, _TENSOR = 1, 2, 8
_DTYPE, _SHAPE, _CONTENT, _FLOATS, _STRINGS = 1, 2, 4, 5, 8
_DIM, _SIZE = 2, 1


def read(path: str | os.PathLike, trunk_only: bool = False) -> dict[str, np.ndarray]:
    """The arrays of `read_described`."""
    return read_described(path, trunk_only)[0]


def read_described(path: str | os.PathLike, trunk_only: bool = False) -> tuple[dict[str, np.ndarray], Stated | None]:
    """Reads a SavedModel folder that was exported by this project. TensorFlow is not needed.

    The weights are the graph's constants with their names ("conv1/kernel", ...); another constant is the ModelSpec.

    Returns:
        float32 arrays by name, kernels HWIO, in net order; and the ModelSpec, or None for folders of older versions.

    Raises:
        WeightsFileError: there is no graph in the folder, it is damaged, or it is not this project's.
    """
    del trunk_only  # the head is always conv10
    reader = WireReader(path)
    tensors: dict[str, memoryview] = {}
    stated = None
    data = memoryview(read_bytes(os.path.join(path, "saved_model.pb")))
    for node in reader.inner(data, _META_GRAPHS, _GRAPH, _LIBRARY, _FUNCTION, _NODE):
        fields = _of_numbers(reader, node, (_NODE_NAME, _NODE_OP))
        name = bytes(fields.get(_NODE_NAME, b""))
        if bytes(fields.get(_NODE_OP, b"")) != b"Const":
            continue
        if name == SPEC_KEY.encode():
            for text in reader.inner(_tensor(path, reader, node), _STRINGS):
                stated = Stated(parse_spec(path, bytes(text[:MAX_JSON_BYTES])))
        if not _NAME.fullmatch(name):
            continue
        if name.decode() in tensors:
            raise WeightsFileError(f"{path}: two constants are called {name.decode()!r}; the file is damaged.")
        tensors[name.decode()] = _tensor(path, reader, node)
    if not tensors:
        raise WeightsFileError(
            f"{path}: expected the constants of a model exported by this project, <layer>/<kernel or bias>, and got "
            "none. Export the model again from its .keras or .weights.h5 file."
        )
    shapes = {name: _shape(reader, tensor) for name, tensor in tensors.items()}
    check_declared(path, shapes)
    values = {name: _values(path, reader, name, tensors[name], shapes[name]) for name in tensors}
    return float32_arrays(path, values), stated


def _of_numbers(reader: WireReader, message: memoryview, numbers: tuple[int, ...]) -> dict[int, memoryview]:
    return {number: value for number, kind, value in reader.fields(message) if kind == BYTES and number in numbers}


def _tensor(path: str | os.PathLike, reader: WireReader, node: memoryview) -> memoryview:
    """The TensorProto of a Const: the tensor of its attribute `value`."""
    for attribute in reader.inner(node, _NODE_ATTR):
        fields = _of_numbers(reader, attribute, (_KEY, _VALUE))
        if bytes(fields.get(_KEY, b"")) == b"value" and _VALUE in fields:
            for tensor in reader.inner(fields[_VALUE], _TENSOR):
                return tensor
    raise WeightsFileError(f"{path}: a constant has no value; the file is damaged.")


def _shape(reader: WireReader, tensor: memoryview) -> list[int]:
    shape = []
    for dim in reader.inner(tensor, _SHAPE, _DIM):
        sizes = [value for number, kind, value in reader.fields(dim) if number == _SIZE and kind == VARINT]
        shape.append(sizes[-1] if sizes else 0)
    return shape


def _values(path: str | os.PathLike, reader: WireReader, name: str, tensor: memoryview, shape: list[int]) -> np.ndarray:
    """A tensor's values, after a check that there are as many as its shape says."""
    dtypes = [value for number, kind, value in reader.fields(tensor) if number == _DTYPE and kind == VARINT]
    if dtypes != [_FLOAT]:
        raise WeightsFileError(f"{path}: {name} must be float32, got TensorFlow's data types {dtypes[:4]}.")
    # A single value is written as a list of one number, more are written as they lie in memory.
    content = [bytes(value) for field in (_CONTENT, _FLOATS) for value in reader.inner(tensor, field)]
    if len(content) != 1 or len(content[0]) != 4 * math.prod(shape):
        raise WeightsFileError(f"{path}: {name} of shape {shape} has {sum(map(len, content))} bytes.")
    return np.frombuffer(content[0], "<f4").reshape(shape)
