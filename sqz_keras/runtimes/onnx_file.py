"""Models as ONNX: the graph is written node by node from the ModelSpec, with NCHW inside.

The numbers below are the field numbers of onnx.proto. `tests/runtimes/test_onnx_file.py` reads the files back with the
package `onnx`, whose checker must find nothing wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sqz_keras.architecture.colours import COLOURS
from sqz_keras.architecture.layers import IMAGES, Layer
from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.protobuf import write_message
from sqz_keras.weights.description import SPEC_KEY, spec_text

INPUT, OUTPUT = "images", "probabilities"
OPSET, IR_VERSION = 17, 8  # of ONNX 1.12, which runtimes since 2022 read
_TYPES = {np.dtype(np.float32): 1, np.dtype(np.int64): 7}  # TensorProto.DataType
_INT, _TENSOR, _INTS = 2, 4, 7  # AttributeProto.AttributeType


def convert(spec: ModelSpec, arrays: Mapping[str, np.ndarray]) -> bytes:
    """The model as the content of an `.onnx` file.

    Input `images`: float32 (batch, S, S, 3), RGB in 0..255, with S the network's input size; output `probabilities`:
    float32 (batch, classes). The weights keep their values and the releases' names, so that the file can be read back;
    the ModelSpec is in the metadata.

    Args:
        spec: Describes the model; its input has 3 channels.
        arrays: Its weights by name, float32.

    Returns:
        The whole file.

    Raises:
        ValueError: The model does not take 3 channels.
    """
    if spec.channels != 3:
        raise ValueError(f"ONNX files take RGB images, 3 channels; this model takes {spec.channels}.")
    graph = _Graph(arrays)
    x = graph.add("Transpose", [INPUT], perm=[0, 3, 1, 2])
    x = _colours(graph, x, spec)
    tensors, layers = {IMAGES: x}, spec.layers()
    for layer in layers:
        tensors[layer.name] = graph.add_layer(layer, [tensors[name] for name in layer.inputs])
    graph.add("Softmax", [graph.add("Flatten", [tensors[layers[-1].name]])], output=OUTPUT, axis=1)
    size = spec.input_size
    graph_message = {
        1: graph.nodes,
        2: "squeezenet",
        5: graph.initializers,
        11: _value(INPUT, ["batch", size, size, spec.channels]),
        12: _value(OUTPUT, ["batch", spec.classes]),
    }
    return write_message(
        {
            1: IR_VERSION,
            2: "sqz-keras",
            7: graph_message,
            8: {1: "", 2: OPSET},
            14: {1: SPEC_KEY, 2: spec_text(spec)},
        }
    )


class _Graph:
    """The nodes and weights so far; a tensor is named after the operator and number of the node that makes it."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self._arrays = arrays
        self.nodes: list[dict] = []
        self.initializers: list[dict] = []

    def add(self, op: str, inputs: Sequence[str], output: str | None = None, **attributes) -> str:
        output = output or f"{op}_{len(self.nodes)}"
        written = [_attribute(name, value) for name, value in sorted(attributes.items())]
        self.nodes.append({1: list(inputs), 2: output, 4: op, 5: written})
        return output

    def constant(self, value: np.ndarray) -> str:
        return self.add("Constant", [], value=value)

    def add_layer(self, layer: Layer, inputs: Sequence[str]) -> str:
        if layer.kind == "convolution":
            return self._convolution(layer, *inputs)
        if layer.kind == "max pool":
            window = {"kernel_shape": [layer.kernel] * 2, "strides": [layer.stride] * 2}
            return self.add("MaxPool", inputs, **window, ceil_mode=1)
        if layer.kind == "concatenation":
            return self.add("Concat", inputs, axis=1)
        if layer.kind == "addition":
            return self.add("Add", inputs)
        return self.add("GlobalAveragePool", inputs)

    def _convolution(self, layer: Layer, x: str) -> str:
        """A convolution and its ReLU."""
        name = layer.name.replace("_", "/", 1)
        kernel, bias = self._arrays[f"{layer.name}/kernel"], self._arrays[f"{layer.name}/bias"]
        for array, part in ((np.transpose(kernel, (3, 2, 0, 1)), "w"), (bias, "b")):
            self.initializers.append(_tensor(array, f"{name}_{part}_0"))
        attributes = {"strides": [layer.stride] * 2} if layer.stride > 1 else {}
        if layer.padding:
            attributes["pads"] = [layer.padding] * 4
        return self.add("Relu", [self.add("Conv", [x, f"{name}_w_0", f"{name}_b_0"], **attributes)])


def _colours(graph: _Graph, x: str, spec: ModelSpec) -> str:
    order, scale, shift = COLOURS[spec.preprocessing.mode]
    if list(order) != sorted(order):
        x = graph.add("Gather", [x, graph.constant(np.array(order, np.int64))], axis=1)
    scale, shift = (values.astype(np.float32).reshape(1, -1, 1, 1) for values in (scale, shift))
    if not np.all(scale == 1):
        x = graph.add("Mul", [x, graph.constant(scale)])
    return graph.add("Add", [x, graph.constant(shift)])


def _attribute(name: str, value: int | list[int] | np.ndarray) -> dict:
    if isinstance(value, np.ndarray):
        return {1: name, 5: _tensor(value), 20: _TENSOR}
    return {1: name, 8: value, 20: _INTS} if isinstance(value, list) else {1: name, 3: value, 20: _INT}


def _tensor(array: np.ndarray, name: str | None = None) -> dict:
    named = {} if name is None else {8: name}
    data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    return {1: list(array.shape), 2: _TYPES[array.dtype], **named, 9: data}


def _value(name: str, shape: Sequence[int | str]) -> dict:
    """A float32 input or output; a dimension given as a string has any size, and that name."""
    dimensions = [{2: size} if isinstance(size, str) else {1: size} for size in shape]
    return {1: name, 2: {1: {1: _TYPES[np.dtype(np.float32)], 2: {1: dimensions}}}}
