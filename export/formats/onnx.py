"""Models as ONNX: the graph is written node by node from the ModelSpec, NCHW inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.formats.colours import INPUT, OUTPUT, colour_map
from sqz_keras import ModelSpec
from sqz_keras.architecture.layers import IMAGES, Layer
from sqz_keras.weights.description import SPEC_KEY, spec_text

OPSET, IR_VERSION = 17, 8  # of ONNX 1.12, which runtimes since 2022 read


def convert(spec: ModelSpec, arrays: Mapping[str, np.ndarray]) -> bytes:
    """The model as the content of an `.onnx` file.

    Input `images`: float32 (batch, S, S, 3), RGB in 0..255; output `probabilities`: float32 (batch, classes). The
    weights keep their values and the releases' names, so that the file can be read back; the ModelSpec is in the
    metadata.
    """
    graph = _Graph(arrays)
    x = graph.add("Transpose", [INPUT], perm=[0, 3, 1, 2])
    x = _colours(graph, x, spec)
    tensors, layers = {IMAGES: x}, spec.layers()
    for layer in layers:
        tensors[layer.name] = graph.add_layer(layer, [tensors[name] for name in layer.inputs])
    graph.add("Softmax", [graph.add("Flatten", [tensors[layers[-1].name]])], output=OUTPUT, axis=1)
    size = spec.input_size
    images = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", size, size, spec.channels])
    answer = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", spec.classes])
    model = helper.make_model(
        helper.make_graph(graph.nodes, "squeezenet", [images], [answer], graph.initializers),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="sqz-keras",
    )
    helper.set_model_props(model, {SPEC_KEY: spec_text(spec)})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def run(data: bytes, images: np.ndarray) -> np.ndarray | None:
    """Probabilities (N, classes) of an ONNX model by onnxruntime, or None where that is not installed."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return None
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run([OUTPUT], {INPUT: images})[0]


class _Graph:
    """The nodes and weights so far; each tensor is named by the number of the node that makes it."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self._arrays = arrays
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def add(self, op: str, inputs: Sequence[str], output: str | None = None, **attributes) -> str:
        output = output or f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def constant(self, value: np.ndarray) -> str:
        return self.add("Constant", [], value=numpy_helper.from_array(value))

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
            self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), f"{name}_{part}_0"))
        attributes = {"strides": [layer.stride] * 2} if layer.stride > 1 else {}
        if layer.padding:
            attributes["pads"] = [layer.padding] * 4
        return self.add("Relu", [self.add("Conv", [x, f"{name}_w_0", f"{name}_b_0"], **attributes)])


def _colours(graph: _Graph, x: str, spec: ModelSpec) -> str:
    order, scale, shift = colour_map(spec)
    if list(order) != sorted(order):
        x = graph.add("Gather", [x, graph.constant(np.array(order, np.int64))], axis=1)
    if not np.all(scale == 1):
        x = graph.add("Mul", [x, graph.constant(scale.reshape(1, -1, 1, 1))])
    return graph.add("Add", [x, graph.constant(shift.reshape(1, -1, 1, 1))])
