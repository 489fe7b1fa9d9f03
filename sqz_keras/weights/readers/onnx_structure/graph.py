"""An ONNX graph as the steps of a network: constants are evaluated, and what only moves values around is left out.

Exporters write the same network in many ways: weights as initializers, as Constant nodes or after Transpose and Cast;
images with channels first or last; padding in a node of its own; biases added afterwards. Here all of these become
convolutions, ReLUs, pools, concatenations and additions over (N, C, H, W).
"""

from __future__ import annotations

import collections
import dataclasses
import math
import os
import typing

import numpy as np

from sqz_keras.weights.arrays import WeightsFileError
from sqz_keras.weights.readers.onnx_structure.constants import FLOATS, MAX_SMALL, Constant, Constants
from sqz_keras.weights.readers.onnx_structure.network import Data, Network, label
from sqz_keras.weights.readers.onnx_structure.operators import READERS

if typing.TYPE_CHECKING:
    import onnx

_QUANTISED = ("quantize", "qlinear", "integer")  # parts of operators' names
_SHAPES = ("Shape", "Size")  # read the shape of a tensor, not its values
_KEPT = ("Identity", "Dropout")
_FLOAT_TYPES = tuple(FLOATS)
_NUMBERS = ("value_float", "value_floats", "value_int", "value_ints")  # attributes of a Constant, instead of a tensor
# What may follow the average: none of them has weights.
_TAIL = ("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "ReduceMean")
_SOFTMAX = ("Softmax", "LogSoftmax")


def read_graph(path: str | os.PathLike, graph: onnx.GraphProto) -> Network:
    """The steps of a graph.

    Args:
        path: named in errors.
        graph: the file's graph; the memory that it takes is already bounded.

    Raises:
        WeightsFileError: the graph is malformed or quantised.
    """
    network = Network(path)
    _refuse_other_formats(path, graph)
    for tensor in graph.initializer:
        network.define(tensor.name, network.constants.of_tensor(tensor))
    _read_input(network, graph)
    read = [*(name for node in graph.node for name in node.input), *(output.name for output in graph.output)]
    network.uses.update(collections.Counter(read))
    floats = [tensor.name for tensor in graph.initializer if tensor.data_type in FLOATS]
    unused = [name for name in floats if name not in network.uses]
    if unused:
        raise WeightsFileError(f"{path}: {len(unused)} weights belong to no node, {unused[0]!r:.80} for one.")
    for node in graph.node:
        _read_node(network, node)
    ends = [network.values.get(output.name) for output in graph.output]
    network.ends += [end.step for end in ends if isinstance(end, Data)]
    return network


def _refuse_other_formats(path: str | os.PathLike, graph: onnx.GraphProto) -> None:
    for node in graph.node:
        if any(part in node.op_type.lower() for part in _QUANTISED):
            raise WeightsFileError(
                f"{path}: the model is quantised ({label(node)}), so its weights are not those that were "
                "trained. Export the float model."
            )
        if node.domain not in ("", "ai.onnx"):
            raise WeightsFileError(
                f"{path}: {label(node)} belongs to {node.domain!r:.80}; only ONNX's own operators are read. "
                "Export the model without a runtime's optimisations."
            )
    if graph.sparse_initializer:
        raise WeightsFileError(f"{path}: sparse initializers are not read; save the weights as dense ones.")


def _read_input(network: Network, graph: onnx.GraphProto) -> None:
    inputs = [value for value in graph.input if value.name not in network.values]
    if len(inputs) != 1:
        names = ", ".join(f"{value.name!r:.40}" for value in inputs[:4])
        raise WeightsFileError(f"{network.path}: expected one input, the images; got {len(inputs)}: {names}.")
    dims = inputs[0].type.tensor_type.shape.dim
    network.input_shape = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in dims)
    if len(network.input_shape) not in (0, 4):
        raise WeightsFileError(f"{network.path}: images need 4 dimensions, the input has {len(network.input_shape)}.")
    network.images.label = f"input {inputs[0].name!r:.80}"
    network.define(inputs[0].name, Data(network.images, (0, 1, 2, 3)))


def _read_node(network: Network, node: onnx.NodeProto) -> None:
    """Defines the outputs of a node."""
    unknown = [name for name in node.input if name not in network.values]
    if unknown:
        raise WeightsFileError(
            f"{network.path}: {label(node)} reads {unknown[0]!r:.80}, which nothing before it makes; the file is "
            "damaged."
        )
    inputs = [network.values[name] for name in node.input]
    value = None
    if node.op_type in _SHAPES or (not node.input and node.op_type != "Constant"):
        pass
    elif any(isinstance(given, Data) for given in inputs):
        value = _data(network, node, inputs)
    elif all(isinstance(given, Constant) for name, given in zip(node.input, inputs, strict=True) if name):
        value = _constant(network.constants, node, [given for given in inputs if given])
    for index, name in enumerate(node.output):
        if name:
            network.define(name, None if index else value)


def _constant(constants: Constants, node: onnx.NodeProto, inputs: list[Constant]) -> Constant | None:
    """What a node makes from constants alone; None if weights do not go through such a node."""
    attributes = _attributes(node)
    if node.op_type == "Constant":
        if "value" in attributes:
            return constants.of_tensor(attributes["value"])
        numbers = [attributes[name] for name in _NUMBERS if name in attributes]
        return constants.of_array(node.output[0], np.array(numbers[0])) if numbers else None
    if not inputs:
        return None
    source = inputs[0]
    if node.op_type in _KEPT:
        return source
    if node.op_type == "Cast":
        return constants.cast(source, attributes.get("to", 0))
    if node.op_type == "Transpose":
        rank = len(source.shape)
        return constants.transposed(source, tuple(attributes.get("perm", range(rank - 1, -1, -1))))
    # An input that is left out in the middle would put those behind it into other places.
    if node.op_type in _FOLDED and all(node.input) and sum(math.prod(given.shape) for given in inputs) <= MAX_SMALL:
        folded = _FOLDED[node.op_type](attributes, *map(constants.small, inputs))
        return None if folded is None else constants.of_array(node.output[0], folded)
    if node.op_type in ("Reshape", "Squeeze", "Unsqueeze") and math.prod(source.shape) <= MAX_SMALL:
        numbers = attributes.get("shape" if node.op_type == "Reshape" else "axes")
        if numbers is None and inputs[1:]:
            numbers = [int(number) for number in constants.small(inputs[1]).ravel()]
        if numbers is not None or node.op_type == "Squeeze":
            return constants.of_array(source.name, _reshaped(node.op_type, constants.small(source), numbers))
    return None


def _filled(attributes: dict, shape: np.ndarray) -> np.ndarray | None:
    import onnx

    if math.prod(shape.tolist()) > MAX_SMALL:
        return None
    value = onnx.numpy_helper.to_array(attributes["value"]) if "value" in attributes else np.zeros(1, np.float32)
    return np.full(shape, value[0])


def _sliced(attributes: dict, array: np.ndarray, *numbers: np.ndarray) -> np.ndarray | None:
    if not numbers:  # before opset 10 they are attributes, which are not understood here
        return None
    starts, ends, *others = (part.tolist() for part in numbers)
    axes = others[0] if others else range(len(starts))
    steps = others[1] if others[1:] else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        array = np.take(array, range(*slice(start, end, step).indices(array.shape[axis])), axis)
    return array


# Operators on small constants, by which PyTorch's older exporter computes the pads of `torch.nn.functional.pad`. The
# result is None if it is too large, or not understood.
_FOLDED = {
    "Concat": lambda attributes, *arrays: np.concatenate(arrays, attributes["axis"]),
    "ConstantOfShape": _filled,
    "Slice": _sliced,
}


def _reshaped(op_type: str, array: np.ndarray, numbers: list[int] | None) -> np.ndarray:
    """The array after a Reshape to `numbers`, or a Squeeze or Unsqueeze of these axes; None squeezes all of size 1."""
    if op_type == "Squeeze":
        return np.squeeze(array, None if numbers is None else tuple(numbers))
    if op_type == "Unsqueeze":
        return np.expand_dims(array, tuple(numbers))
    return array.reshape([n or array.shape[i] for i, n in enumerate(numbers)])


def _data(network: Network, node: onnx.NodeProto, inputs: list) -> Data:
    """What a node makes if at least one of its inputs depends on the images."""
    first = next(given for given in inputs if isinstance(given, Data))
    result = _read_step(network, node, inputs, first)
    if isinstance(result, Data):
        return result
    sources = [given for given in inputs if isinstance(given, Data)]
    return network.add_step("other", node, sources, axes=first.axes, reason=result)


def _read_step(network: Network, node: onnx.NodeProto, inputs: list, first: Data) -> Data | str:
    """The tensor that a node makes, or why the node is not a step of a SqueezeNet."""
    attributes = _attributes(node)
    if first.step.kind in ("average", "tail", "softmax"):
        is_behind, is_softmax = first.step.kind == "softmax", node.op_type in _SOFTMAX
        if is_softmax and is_behind:
            return "its input went through a softmax before"
        if is_softmax or node.op_type in (*_KEPT, *_TAIL, "Cast"):
            kind = "softmax" if is_softmax or is_behind else "tail"
            return network.add_step(kind, node, [first], axes=first.axes)
        return "no layer follows the average in a SqueezeNet"
    if node.op_type in _KEPT and first is inputs[0]:
        return first
    if node.op_type == "Cast" and attributes.get("to") in _FLOAT_TYPES:
        return first
    if node.op_type == "Transpose":
        order = attributes.get("perm", range(len(first.axes) - 1, -1, -1))
        if sorted(order) == list(range(len(first.axes))):
            return dataclasses.replace(first, axes=tuple(first.axes[axis] for axis in order))
    if any(name and given is None for name, given in zip(node.input, inputs, strict=True)):
        return "one of its inputs is neither a constant nor a feature map"
    read = READERS.get(node.op_type)
    return read(network, node, attributes, inputs) if read else "no SqueezeNet has such a step"


def _attributes(node: onnx.NodeProto) -> dict[str, object]:
    import onnx

    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
