"""Models as ONNX: the graph is written node by node from the ModelSpec, NCHW inside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.formats.colours import INPUT, OUTPUT, colour_map
from sqz_keras import ModelSpec

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
    x = _body(graph, x, spec)
    x = graph.conv(x, "conv10", pads=[spec.conv10_padding] * 4)
    x = graph.add("Flatten", [graph.add("GlobalAveragePool", [x])])
    graph.add("Softmax", [x], output=OUTPUT, axis=1)
    size = spec.input_size
    images = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", size, size, spec.channels])
    answer = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", spec.classes])
    model = helper.make_model(
        helper.make_graph(graph.nodes, "squeezenet", [images], [answer], graph.initializers),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="sqz-keras",
    )
    helper.set_model_props(model, {"model_spec": json.dumps(spec.to_json())})
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

    def conv(self, x: str, layer: str, **attributes) -> str:
        """A convolution and its ReLU."""
        name = layer.replace("_", "/", 1)
        kernel, bias = self._arrays[f"{layer}/kernel"], self._arrays[f"{layer}/bias"]
        for array, part in ((np.transpose(kernel, (3, 2, 0, 1)), "w"), (bias, "b")):
            self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), f"{name}_{part}_0"))
        return self.add("Relu", [self.add("Conv", [x, f"{name}_w_0", f"{name}_b_0"], **attributes)])


def _colours(graph: _Graph, x: str, spec: ModelSpec) -> str:
    order, scale, shift = colour_map(spec)
    if list(order) != sorted(order):
        x = graph.add("Gather", [x, graph.constant(np.array(order, np.int64))], axis=1)
    if not np.all(scale == 1):
        x = graph.add("Mul", [x, graph.constant(scale.reshape(1, -1, 1, 1))])
    return graph.add("Add", [x, graph.constant(shift.reshape(1, -1, 1, 1))])


def _body(graph: _Graph, x: str, spec: ModelSpec) -> str:
    """From conv1 to conv10's input; the pools are in ceil mode."""
    net = spec.metaparameters

    def pooled(x: str, number: int) -> str:
        pool = {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}
        return graph.add("MaxPool", [x], **pool) if number in net.pool_after else x

    x = pooled(graph.conv(x, "conv1", strides=[2, 2]), 1)
    for fire, around in zip(net.fire_modules(), net.bypasses(spec.bypass), strict=True):
        squeezed = graph.conv(x, f"{fire.name}_squeeze1x1")
        expanded = [graph.conv(squeezed, f"{fire.name}_expand1x1")]
        expanded.append(graph.conv(squeezed, f"{fire.name}_expand3x3", pads=[1, 1, 1, 1]))
        outputs = graph.add("Concat", expanded, axis=1)
        if around is not None:
            beside = graph.conv(x, f"{fire.name}_bypass1x1") if around == "conv" else x
            outputs = graph.add("Add", [beside, outputs])
        x = pooled(outputs, fire.number)
    return x
