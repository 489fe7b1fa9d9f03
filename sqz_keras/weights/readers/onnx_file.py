"""ONNX models, read by the structure of their graphs: the names of nodes and tensors do not matter.

Files that this project exports have the model's description in their metadata. For others it follows from the graph:
the network, the input's size, and the colours if the graph prepares them itself.
"""

from __future__ import annotations

import dataclasses
import os

import numpy as np

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.extras import KERAS, needs
from sqz_keras.protobuf import BYTES
from sqz_keras.weights.arrays import WeightsFileError, check_declared, float32_arrays, hwio, read_bytes, refuse
from sqz_keras.weights.readers.onnx_structure import external_data
from sqz_keras.weights.readers.onnx_structure.graph import read_graph
from sqz_keras.weights.readers.onnx_structure.network import Network
from sqz_keras.weights.readers.onnx_structure.spec import described_spec, inferred_spec, tells_colours
from sqz_keras.weights.readers.onnx_structure.walk import Structure, walk
from sqz_keras.weights.readers.wire import WireReader

# Field numbers of onnx.proto: where a graph has tensors, and where a tensor keeps its values.
_GRAPH, _INITIALIZER, _NODE, _ATTRIBUTE, _TENSOR, _VALUES = 7, 5, 1, 5, 5, (4, 5, 7, 9, 10)
_MAX_STRUCTURE_BYTES = 1 << 20
_DAMAGE = (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, ZeroDivisionError, StopIteration)


@dataclasses.dataclass(frozen=True)
class OnnxModel:
    """What an ONNX file holds.

    Args:
        path: the file.
        arrays: the weights by name, float32, kernels HWIO.
        structure: the structure of the graph.
        spec: the description in the file's metadata, checked against the graph; None if it has none.
        producer: what the file says about the program that wrote it.
    """

    path: str
    arrays: dict[str, np.ndarray]
    structure: Structure
    spec: ModelSpec | None
    producer: str

    def infer_spec(self, known: ModelSpec | None) -> ModelSpec:
        """The description that follows from the graph; see `onnx_structure.spec.inferred_spec`."""
        return inferred_spec(self.path, self.structure, self.arrays, self.producer, known)

    def tells_colours(self) -> bool:
        """Whether the file tells how the colours of images are prepared for it."""
        return tells_colours(self.path, self.structure, self.producer)


def read(path: str | os.PathLike, trunk_only: bool = False) -> dict[str, np.ndarray]:
    """The weights of an ONNX file; see `read_model`."""
    return read_model(path, trunk_only).arrays


def read_model(path: str | os.PathLike, trunk_only: bool = False) -> OnnxModel:
    """Reads the convolutions of an ONNX graph; nothing is run.

    Weights may be in files beside it (`external_data`).

    Args:
        path: the file.
        trunk_only: whether a head that is not a SqueezeNet's is left out.

    Returns:
        The model; its arrays are in net order.

    Raises:
        WeightsFileError: the file is damaged, too large or quantised, lacks the files with its weights, is not a
            SqueezeNet, or describes a different model from it holds.
        MissingExtraError: The package onnx is not installed.
    """
    with needs(*KERAS):
        import onnx
        from google.protobuf.message import DecodeError

    data = read_bytes(path)
    _check_structure(path, data)
    # A name that is not UTF-8 comes back as bytes, which raise a TypeError.
    with refuse(path, DecodeError, UnicodeDecodeError, *_DAMAGE):
        model = onnx.ModelProto.FromString(data)
        external_data.take_in(path, model.graph)
        network = read_graph(path, model.graph)
        structure = walk(network, trunk_only)
        arrays = _arrays(network, structure)
        spec = described_spec(path, model.metadata_props, structure, arrays)
    return OnnxModel(os.fspath(path), arrays, structure, spec, model.producer_name)


def _check_structure(path: str | os.PathLike, data: bytes) -> None:
    """Bounds all but the tensors' values: an empty message of two bytes takes far more memory once it is parsed."""
    reader, structure = WireReader(path), len(data)
    for graph in reader.inner(memoryview(data), _GRAPH):
        tensors = [*reader.inner(graph, _INITIALIZER), *reader.inner(graph, _NODE, _ATTRIBUTE, _TENSOR)]
        for tensor in tensors:
            values = [value for key, kind, value in reader.fields(tensor) if key in _VALUES and kind == BYTES]
            structure -= sum(len(value) for value in values)
    if structure > _MAX_STRUCTURE_BYTES:
        raise WeightsFileError(
            f"{path}: {structure} bytes that are not weights; at most {_MAX_STRUCTURE_BYTES} are read."
        )


def _arrays(network: Network, structure: Structure) -> dict[str, np.ndarray]:
    """The weights of the convolutions, after a check that their sizes are reasonable."""
    steps, values = structure.convolutions, network.constants.values
    check_declared(network.path, {f"{layer}/kernel": step.kernel.shape for layer, step in steps.items()})
    arrays = {}
    for layer, step in steps.items():
        arrays[f"{layer}/kernel"] = hwio(values(step.kernel))
        filters = step.kernel.shape[0]
        bias = np.zeros(filters, np.float32) if step.bias is None else values(step.bias)
        arrays[f"{layer}/bias"] = bias.reshape(filters)
    return float32_arrays(network.path, arrays)
