"""How each operator of ONNX that a SqueezeNet may have becomes a step of the network."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Sequence

import numpy as np

from sqz_keras.weights.arrays import WeightsFileError
from sqz_keras.weights.readers.onnx_structure.constants import MAX_SMALL, Constant
from sqz_keras.weights.readers.onnx_structure.network import CHANNELS_FIRST, NO_PADS, Colours, Data, Network

if typing.TYPE_CHECKING:
    import onnx

_SEVERAL = object()
_ADDED = "1"  # an axis of size 1 that the graph adds around a pool
_MOST_AXES = 8

# Readers of operators. Each returns the tensor that the node makes, or says why it is not a step of a SqueezeNet.
# Inputs are constants, tensors that depend on the images, or None for others; at least one depends on the images.


def _convolution(network: Network, node: onnx.NodeProto, attributes: dict, inputs: list) -> Data | str:
    source, kernel, bias = (*inputs, None, None)[:3]
    if not isinstance(source, Data) or not isinstance(kernel, Constant) or len(kernel.shape) != 4:
        return "its kernel is not a constant of 4 dimensions"
    if bias is not None and (not isinstance(bias, Constant) or bias.shape != kernel.shape[:1]):
        return "its bias is not a constant with a value for each filter"
    if min(kernel.shape) < 1 or kernel.shape[1] > MAX_SMALL:
        return "its kernel is empty or too large"
    if source.step is network.images:
        _read_colours(network, source, kernel.shape[1])
        axes = source.axes
        if len(network.input_shape) == 4:
            source.step.size = (network.input_shape[axes[2]], network.input_shape[axes[3]])
    elif source.axes != CHANNELS_FIRST:
        return f"it reads axes {''.join(map(str, source.axes))}"
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    if attributes.get("group", 1) != 1 or list(dilations) != [1, 1] or len(strides) != 2 or len(set(strides)) != 1:
        return "its convolution has groups, dilations or two different strides"
    if strides[0] < 1:
        return "its stride is 0"
    pads = _padding(attributes, kernel.shape[2:], strides[0], source.step.size)
    if pads is None:
        return "its padding depends on the size of the images"
    pads = tuple(own + before for own, before in zip(pads, source.pads, strict=True))
    size = tuple(
        None if n is None else (n + pads[i] + pads[i + 2] - kernel.shape[2 + i]) // strides[0] + 1
        for i, n in enumerate(source.step.size)
    )
    return network.add_step(
        "convolution", node, [source], kernel=kernel, bias=bias, stride=strides[0], pads=pads, size=size
    )


def _read_colours(network: Network, source: Data, channels: int) -> None:
    order, scale, shift = np.arange(channels), np.ones(channels), np.zeros(channels)
    for operation, axis, values in source.colours:
        # Infinite or NaN values need no check here: no mode of preprocessing has them.
        fits = axis in (None, source.axes[1]) and (values.size == 1 or operation == "gather" or values.size == channels)
        if not fits or (operation == "gather" and sorted(values.tolist()) != list(range(channels))):
            raise WeightsFileError(
                f"{network.path}: what the graph does to the images is not a valid change of their colours."
            )
        if operation == "gather":
            order, scale, shift = order[values], scale[values], shift[values]
        elif operation == "add":
            shift = shift + values
        else:
            with np.errstate(all="ignore"):
                scale, shift = scale * values, shift * values
    network.colours = Colours(tuple(int(channel) for channel in order), scale, shift)


def _relu(network: Network, node: onnx.NodeProto, attributes: dict, inputs: list) -> Data:
    network.channels_last |= inputs[0].axes == ("N", "H", "W", "C")
    return network.add_step("relu", node, inputs, axes=inputs[0].axes)


def _max_pool(network: Network, node: onnx.NodeProto, attributes: dict, inputs: list) -> Data | str:
    (source,) = inputs[:1]
    if [axis for axis in source.axes[2:] if axis in ("H", "W")] != ["H", "W"]:
        return f"it reads axes {''.join(map(str, source.axes))}"
    attributes = _of_height_and_width(attributes, source.axes[2:])
    if attributes is None:
        return "its window is not over height and width alone"
    kernel, strides = list(attributes.get("kernel_shape", [])), list(attributes.get("strides", [1, 1]))
    if kernel != [3, 3] or strides != [2, 2] or list(attributes.get("dilations", [1, 1])) != [1, 1]:
        return f"its window is {kernel[:4]} with strides {strides[:4]}, and a SqueezeNet's 3x3 with stride 2"
    pads = _padding(attributes, (3, 3), 2, source.step.size)
    if pads is None:
        return "its padding depends on the size of the images"
    pads = tuple(own + before for own, before in zip(pads, source.pads, strict=True))
    if pads[:2] != (0, 0) or max(pads) > 1:
        return f"its pads are {list(pads)}; only a row and a column at the end make no difference to a ceil mode"
    up = 1 if attributes.get("ceil_mode", 0) else 0
    size = tuple(
        None if n is None else (n + after - 3 + up) // 2 + 1
        for n, after in zip(source.step.size, pads[2:], strict=True)
    )
    ours = [(n // 2, actual) for n, actual in zip(source.step.size, size, strict=True) if n is not None]
    if any(actual > expected for expected, actual in ours):
        return "a row or column of its output has no input"
    leaves_rest = any(actual < expected for expected, actual in ours) or any(
        n is None and not (up or after) for n, after in zip(source.step.size, pads[2:], strict=True)
    )
    return network.add_step("max pool", node, [source], axes=source.axes, size=size, leaves_rest=leaves_rest)


def _of_height_and_width(attributes: dict, axes: Sequence[int | str]) -> dict | None:
    """The attributes of a pool over these axes, for height and width alone; None if it changes the others."""
    chosen = dict(attributes)
    for name, unchanged in (("kernel_shape", 1), ("strides", 1), ("dilations", 1), ("pads", 0)):
        if name in attributes:
            values, axes_of_values = attributes[name], 2 * tuple(axes) if name == "pads" else tuple(axes)
            pairs = list(zip(axes_of_values, values, strict=False))
            others = {value for axis, value in pairs if axis not in ("H", "W")}
            if len(values) != len(axes_of_values) or others - {unchanged}:
                return None
            chosen[name] = [value for axis, value in pairs if axis in ("H", "W")]
    return chosen


def _more_or_fewer_axes(network: Network, node: onnx.NodeProto, attributes: dict, inputs: list) -> Data | str:
    """Axes of size 1 that come and go around a pool: jax2onnx pools over (1, 1, N, H, W, C)."""
    source, numbers, axes = inputs[0], _axes(network, attributes, inputs), list(inputs[0].axes)
    if numbers is None or source.step is network.images:
        return "its axes are not constant, or it changes those of the images"
    rank = len(axes) + (len(numbers) if node.op_type == "Unsqueeze" else 0)
    places = sorted({number % rank for number in numbers if -rank <= number < rank <= _MOST_AXES})
    if len(places) < len(numbers):
        return "its axes are invalid"
    for place in places if node.op_type == "Unsqueeze" else ():
        axes.insert(place, _ADDED)
    for place in reversed(places) if node.op_type == "Squeeze" else ():
        if axes.pop(place) != _ADDED:
            return "it drops an axis of the feature map"
    return dataclasses.replace(source, axes=tuple(axes))


def _average(network: Network, node: onnx.NodeProto, attributes: dict, inputs: list) -> Data | str:
    source = inputs[0]
    if node.op_type == "GlobalAveragePool":
        if source.axes != CHANNELS_FIRST:
            return f"it reads axes {''.join(map(str, source.axes))}"
        return network.add_step("average", node, [source], size=(1, 1))
    if node.op_type == "AveragePool":
        window = tuple(attributes.get("kernel_shape", ()))
        if source.axes != CHANNELS_FIRST or window != source.step.size or any(attributes.get("pads", ())):
            return f"it averages windows of {list(window)} in maps of {list(source.step.size)}, not whole maps"
        return network.add_step("average", node, [source], size=(1, 1))
    axes = _axes(network, attributes, inputs)
    letters = {source.axes[axis] for axis in axes or () if -4 <= axis < len(source.axes)}
    if letters != {"H", "W"}:
        return "it averages over other axes than height and width"
    return network.add_step("average", node, [source], axes=source.axes, size=(1, 1))


def _concatenation(network: Network, node: onnx.NodeProto, attributes: dict, inputs: list) -> Data | str:
    axis = attributes.get("axis", -1)
    if not all(isinstance(given, Data) for given in inputs) or len({given.axes for given in inputs}) > 1:
        return "it joins something other than feature maps, or maps of other axes"
    axes = inputs[0].axes
    if not -len(axes) <= axis < len(axes) or axes[axis] != "C":
        return "it does not join channels"
    return network.add_step("concatenation", node, inputs, axes=axes)


def _arithmetic(network: Network, node: onnx.NodeProto, attributes: dict, inputs: list) -> Data | str:
    if len(inputs) != 2 or None in inputs:
        return "it has more than two inputs, or one that is not a feature map"
    if all(isinstance(given, Data) for given in inputs):
        if node.op_type not in ("Add", "Sum") or inputs[0].axes != inputs[1].axes:
            return "only additions join feature maps"
        return network.add_step("addition", node, inputs, axes=inputs[0].axes)
    source, constant = sorted(inputs, key=lambda given: isinstance(given, Constant))
    if node.op_type in ("Sub", "Div") and source is not inputs[0]:
        return "it divides or subtracts by the images"
    axis = _only_axis(constant.shape, source.axes)
    if axis is _SEVERAL:
        return "its constant has several axes"
    if source.step is network.images:
        values = network.constants.small(constant).astype(np.float64).ravel()
        with np.errstate(divide="ignore"):
            operation = {"Sub": ("add", -values), "Mul": ("multiply", values), "Div": ("multiply", 1 / values)}
        name, values = operation.get(node.op_type, ("add", values))
        return _recoloured(source, name, axis, values)
    return _late_bias(network, node, source, constant, axis)


def _late_bias(network: Network, node: onnx.NodeProto, source: Data, constant: Constant, axis) -> Data | str:
    """Takes up a bias that is added after its convolution."""
    step, name = source.step, next(name for name in node.input if network.values[name] is source)
    fits = step.kind == "convolution" and node.op_type in ("Add", "Sum") and axis in ("C", None)
    if not fits or step.bias is not None or step.users or network.uses[name] != 1:
        return "only a bias is added to feature maps, once"
    if math.prod(constant.shape) != step.kernel.shape[0]:
        return "its constant has not one value for each filter"
    step.bias, step.biased_late = constant, True
    return dataclasses.replace(source, biased=True)


def _recoloured(source: Data, operation: str, axis, values: np.ndarray) -> Data | str:
    if len(source.colours) == 16 or source.pads != NO_PADS:
        return "the images go through too many operations"
    return dataclasses.replace(source, colours=(*source.colours, (operation, axis, values)))


def _gather(network: Network, node: onnx.NodeProto, attributes: dict, inputs: list) -> Data | str:
    source, indices, axis = inputs[0], inputs[1], attributes.get("axis", 0)
    if not isinstance(source, Data) or source.step is not network.images or not isinstance(indices, Constant):
        return "channels are put in another order behind the first convolution"
    values = network.constants.small(indices)
    if values.dtype.kind not in "iu" or values.ndim != 1 or not -4 <= axis < 4:
        return "it picks no channels"
    return _recoloured(source, "gather", source.axes[axis], values)


def _pad(network: Network, node: onnx.NodeProto, attributes: dict, inputs: list) -> Data | str:
    """Zeros around a feature map, which become padding of the convolution or pool that reads it."""
    source, given = inputs[0], list(inputs[1:4])
    if source.step is network.images or attributes.get("mode", b"constant") != b"constant":
        return "the images are padded, or not with zeros"
    pads, value = attributes.get("pads"), attributes.get("value", 0.0)
    if given and isinstance(given[0], Constant):
        pads = network.constants.small(given[0]).ravel().tolist()
    if len(given) > 1 and isinstance(given[1], Constant):
        value = float(network.constants.small(given[1]).ravel()[:1].sum())
    axes = list(source.axes)
    if len(given) > 2 and isinstance(given[2], Constant):
        chosen = network.constants.small(given[2]).ravel().tolist()
        axes = [source.axes[axis] for axis in chosen if -4 <= axis < len(source.axes)]
    if pads is None or len(pads) != 2 * len(axes) or min(pads, default=0) < 0 or value != 0:
        return "it does not pad with a fixed number of zeros"
    around = dict.fromkeys("NCHW", (0, 0)) | {letter: (pads[i], pads[i + len(axes)]) for i, letter in enumerate(axes)}
    if around["N"] != (0, 0) or around["C"] != (0, 0) or source.pads != NO_PADS:
        return "it pads other axes than height and width"
    (top, bottom), (left, right) = around["H"], around["W"]
    return dataclasses.replace(source, pads=(top, left, bottom, right))


READERS = {
    "Conv": _convolution,
    "Relu": _relu,
    "MaxPool": _max_pool,
    "GlobalAveragePool": _average,
    "AveragePool": _average,
    "ReduceMean": _average,
    "Concat": _concatenation,
    "Add": _arithmetic,
    "Sum": _arithmetic,
    "Sub": _arithmetic,
    "Mul": _arithmetic,
    "Div": _arithmetic,
    "Gather": _gather,
    "Pad": _pad,
    "Squeeze": _more_or_fewer_axes,
    "Unsqueeze": _more_or_fewer_axes,
}


def _padding(attributes, kernel: Sequence[int], stride: int, size) -> tuple[int, int, int, int] | None:
    """Zeros at the top, left, bottom and right; None if they depend on an unknown size, or are invalid."""
    mode = attributes.get("auto_pad", b"NOTSET")
    if mode in (b"", b"NOTSET"):
        pads = tuple(attributes.get("pads", (0, 0, 0, 0)))
        return pads if len(pads) == 4 and min(pads) >= 0 else None
    if mode == b"VALID":
        return (0, 0, 0, 0)
    before, after = [], []
    for window, n in zip(kernel, size, strict=True):
        if stride == 1:
            total = window - 1
        elif n is None:
            return None
        else:
            total = max((-(-n // stride) - 1) * stride + window - n, 0)
        before.append(total // 2 if mode == b"SAME_UPPER" else total - total // 2)
        after.append(total - before[-1])
    return (*before, *after)


def _axes(network: Network, attributes: dict, inputs: list) -> Sequence[int] | None:
    """The axes that an operator names in its attributes, or in its second input since opset 13; None if it has none."""
    axes = attributes.get("axes")
    if axes is None and len(inputs) > 1 and isinstance(inputs[1], Constant):
        axes = network.constants.small(inputs[1]).ravel().tolist()
    return axes


def _only_axis(shape: Sequence[int], axes: Sequence[int | str]) -> object:
    """The axis along which a constant that is broadcast to `axes` has several values; None if it has a single one."""
    if len(shape) > len(axes):
        return _SEVERAL
    found = [axis for size, axis in zip(shape[::-1], axes[::-1], strict=False) if size != 1]
    return None if not found else found[0] if len(found) == 1 else _SEVERAL
