"""Caffe's `.caffemodel`, a NetParameter message: the layers' blobs are read, and what the layers compute.

Fields of the public message layout (caffe.proto), beside those in the tables below:
NetParameter: layers (V1LayerParameter) 2, layer (LayerParameter) 100.
BlobProto: num 1, channels 2, height 3, width 4, data 5 (packed float), shape 7, double_data 8 (packed double).
BlobShape: dim 1.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping

import numpy as np

from sqz_keras.architecture.colours import BGR_MEANS
from sqz_keras.architecture.layers import bypass_kinds
from sqz_keras.architecture.metaparameters import VERSIONS, Metaparameters, version_of_stem
from sqz_keras.architecture.spec import MOST_PADDING
from sqz_keras.protobuf import BYTES, VARINT
from sqz_keras.weights.arrays import (
    WeightsFileError,
    check_declared,
    check_kernel_rank,
    fire_number,
    float32_arrays,
    hwio,
    hwio_shape,
    layer_name,
    read_bytes,
)
from sqz_keras.weights.description import Hints
from sqz_keras.weights.readers.heads import find_head
from sqz_keras.weights.readers.wire import WireReader

# Field of NetParameter that holds layers -> the fields of these layers that are read. A field named after a type says
# what a layer of this type computes: ConvolutionParameter and so on. TransformationParameter is what a layer that reads
# images does to them.
_LAYERS = {
    2: {4: "name", 5: "type", 2: "bottoms", 3: "tops", 6: "blobs"}
    | {10: "Convolution", 19: "Pooling", 24: "Eltwise", 30: "ReLU", 36: "Transformation"},
    100: {1: "name", 2: "type", 3: "bottoms", 4: "tops", 7: "blobs"}
    | {106: "Convolution", 121: "Pooling", 110: "Eltwise", 123: "ReLU", 100: "Transformation"},
}
# V1LayerParameter's numbers for the types that a SqueezeNet has.
_V1_TYPES = {1: "Accuracy", 3: "Concat", 4: "Convolution", 6: "Dropout", 8: "Flatten", 17: "Pooling", 18: "ReLU"}
_V1_TYPES |= {20: "Softmax", 21: "SoftmaxWithLoss", 22: "Split", 25: "Eltwise", 30: "ArgMax", 36: "Silence"}
_BEFORE_RELU = frozenset(("Split", "Concat", "Dropout", "Pooling"))  # not only after it; an average is refused
_BEHIND_AVERAGE = frozenset(("Accuracy", "ArgMax", "Flatten", "Reshape", "Softmax", "SoftmaxWithLoss"))
# What a layer computes: name -> field for all sides, fields for height and width, and the default.
_CONVOLUTION = {"pad": (3, 9, 10, 0), "stride": (6, 13, 14, 1), "dilation": (18, 18, 18, 1), "group": (5, 5, 5, 1)}
_POOLING = {"pool": (1, 1, 1, 0), "kernel_size": (2, 5, 6, 0), "stride": (3, 7, 8, 1), "pad": (4, 9, 10, 0)}
_POOLING |= {"global_pooling": (12, 12, 12, 0), "round_mode": (13, 13, 13, 0)}
_ELTWISE = {"operation": (1, 1, 1, 1), "coeff": (2, 2, 2, 1.0)}
_RELU = {"negative_slope": (1, 1, 1, 0.0)}
_TRANSFORMATION = {"scale": (1, 1, 1, 1.0), "crop_size": (3, 3, 3, 0), "mean_value": (5, 5, 5, 0.0)}
_MEAN_FILE = 4
# 0 is MAX and 1 AVE; 0 is CEIL.
_MAX_POOL = {"pool": 0, "kernel_size": 3, "stride": 2, "pad": 0, "global_pooling": 0, "round_mode": 0}
_AVERAGE = {"pool": 1, "global_pooling": 1}
_LEGACY_SHAPE = {1: 0, 2: 1, 3: 2, 4: 3}
_DATA = {5: np.dtype("<f4"), 8: np.dtype("<f8")}


@dataclasses.dataclass(frozen=True)
class _Layer:
    """A layer as it is in the file.

    Args:
        name: its name in the file.
        type: its name in LayerParameter; None if it is left out.
        bottoms: the blobs that it reads.
        tops: the blobs that it writes, which may be those that it reads.
        blobs: the BlobProtos of its kernel and bias; none for a layer without weights.
        parameters: its parameter messages by the type that they are for.
    """

    name: str
    type: str | None
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    blobs: dict[str, memoryview]
    parameters: dict[str, memoryview]


def read(path: str | os.PathLike, trunk_only: bool = False) -> dict[str, np.ndarray]:
    """The arrays of `read_described`, whatever the layers compute."""
    return _read(path, WireReader(path), trunk_only)[0]


def read_described(path: str | os.PathLike, trunk_only: bool = False) -> tuple[dict[str, np.ndarray], Hints]:
    """Reads the convolutions of a `.caffemodel`, and what its layers say about the network.

    Args:
        path: the file.
        trunk_only: whether heads that are not named conv10, such as the "conv10-new" of a fine-tuned net, are left
            out.

    Returns:
        float32 arrays by name, kernels HWIO, in net order. The input's channels stay in the file's order (BGR in the
        authors' releases). Also conv10's padding, whether there is a bypass, and how images were prepared for training,
        as far as the file says.

    Raises:
        WeightsFileError: the file is damaged or too large, has weights or layers that no SqueezeNet has, or pads the
            sides of conv10's input differently.
    """
    reader = WireReader(path)
    arrays, layers, head, padding = _read(path, reader, trunk_only)
    if all(layer.type is None for layer in layers):
        return arrays, Hints(conv10_padding=padding)
    *window, _, filters = arrays.get("conv1/kernel", np.empty((0, 0, 0, 0))).shape
    net = VERSIONS.get(version_of_stem(window, filters))
    changes = _changes(reader, layers, head, net, trunk_only)
    if changes:
        raise WeightsFileError(
            f"{path}: its network is not a SqueezeNet: {changes[0]}. Open it with Caffe, or give the file of a network "
            "without the change."
        )
    has_bypass = any(layer.type == "Eltwise" for layer in layers)
    return arrays, Hints(conv10_padding=padding, has_bypass=has_bypass, **_preparation(reader, layers))


def _read(
    path: str | os.PathLike, reader: WireReader, trunk_only: bool
) -> tuple[dict[str, np.ndarray], list[_Layer], str, int | None]:
    """The arrays, all layers, the name of the layer that is conv10, and its padding."""
    blobs: dict[str, tuple[tuple[int, ...], np.ndarray]] = {}
    others: dict[str, dict[str, tuple[tuple[int, ...], np.ndarray]]] = {}
    layers, conv10 = [], "conv10"
    for number, wire_type, value in reader.fields(memoryview(read_bytes(path))):
        if number not in _LAYERS or wire_type != BYTES:
            continue
        layer = _layer(path, reader, value, _LAYERS[number])
        layers.append(layer)
        name, ours = layer.name, layer_name(layer.name)
        if not layer.blobs:
            continue
        if name in others or f"{ours}/kernel" in blobs:
            raise WeightsFileError(f"{path}: layer {name!r:.80} occurs twice.")
        found = {part: _blob(path, reader, f"{ours or name}/{part}", blob, ours) for part, blob in layer.blobs.items()}
        if ours is None:
            others[name] = found
        else:
            conv10 = name if ours == "conv10" else conv10
            blobs |= {f"{ours}/{part}": blob for part, blob in found.items()}
    known = {name: hwio_shape(shape) for name, (shape, _) in blobs.items() if name.endswith("/kernel")}
    kernels = {name: _keras_shape(found["kernel"][0]) for name, found in others.items()}
    head = find_head(path, kernels, known, trunk_only)
    if head:
        blobs |= {f"conv10/{part}": blob for part, blob in others[head].items()}
    check_declared(path, {name: shape for name, (shape, _) in blobs.items()})
    arrays = {}
    for name, (shape, values) in blobs.items():
        if values.size != math.prod(shape):
            raise WeightsFileError(f"{path}: {name} of shape {list(shape)} has {values.size} values.")
        array = values.reshape(shape)
        arrays[name] = hwio(array)
    head = head or conv10
    padding = None if trunk_only else _padding(path, reader, layers, head)
    return float32_arrays(path, arrays), layers, head, padding


def _padding(path: str | os.PathLike, reader: WireReader, layers: list[_Layer], head: str) -> int | None:
    """Rows and columns of zeros around the input of conv10; None without its ConvolutionParameter."""
    message = next((layer.parameters.get("Convolution") for layer in layers if layer.name == head), None)
    if message is None:
        return None
    sides = _numbers(reader, message, _CONVOLUTION)["pad"]
    if len(set(sides)) != 1 or sides[0] > MOST_PADDING:
        raise WeightsFileError(
            f"{path}: conv10 has the paddings {sides[:4]}, expected the same on all sides, at most {MOST_PADDING}."
        )
    return sides[0]


def _preparation(reader: WireReader, layers: list[_Layer]) -> dict[str, object]:
    """The fields of `Hints` that follow from the layer that reads images, if there is one."""
    message = next(
        (layer.parameters["Transformation"] for layer in layers if "Transformation" in layer.parameters), None
    )
    if message is None:
        return {}
    numbers = _numbers(reader, message, _TRANSFORMATION)
    size, scale, means = numbers["crop_size"][-1] or None, numbers["scale"][-1], numbers["mean_value"]
    if any(number == _MEAN_FILE for number, _, _ in reader.fields(message)):
        return {"input_size": size, "mean_file": True}
    # A difference of less than one level out of 255 does not matter.
    is_authors = scale == 1 and len(means) == 3 and np.allclose(means, BGR_MEANS["authors"], rtol=0, atol=1)
    text = f"mean_value={', '.join(f'{mean:g}' for mean in means[:4]) if any(means) else 'none'} and scale={scale:g}"
    return {"input_size": size, "other_colours": None if is_authors else text}


def _numbers(reader: WireReader, message: memoryview, fields: Mapping[str, tuple]) -> dict[str, list[float]]:
    """The numbers of a message by their names in `fields`; the default's type tells floats from integers."""
    given: dict[int, list[float]] = {}
    kinds = {number: type(default) for *numbers, default in fields.values() for number in numbers}
    for number, wire_type, value in reader.fields(message):
        if kinds.get(number) is float and wire_type != VARINT and len(value) % 4 == 0:
            given.setdefault(number, []).extend(np.frombuffer(value, "<f4").tolist())
        elif number in kinds:
            given.setdefault(number, []).extend(reader.varints(wire_type, value))
    return {
        name: given.get(both) or [*given.get(height, [default]), *given.get(width, [default])]
        for name, (both, height, width, default) in fields.items()
    }


def _changes(
    reader: WireReader, layers: list[_Layer], head: str, net: Metaparameters | None, trunk_only: bool
) -> list[str]:
    """Says where the layers are not a SqueezeNet's, in a clause for each place; `net` is the version of its conv1."""
    ours = {layer.name: layer_name(layer.name) for layer in layers if layer.blobs and layer.name != head}
    trunk = [at for at, layer in enumerate(layers) if ours.get(layer.name)]
    changes, pool_after, added, place, is_averaged = [], [], [], 1, False
    for layer in layers[: max(trunk, default=-1) + 1] if trunk_only else layers:
        name, kind = layer.name, layer.type
        if not layer.bottoms or kind == "Silence":  # a source of images or labels
            continue
        if kind == "Convolution":
            part = ours.get(name) or ""
            place = None if name == head else fire_number(part) or place
            expected = {"stride": 2 if part == "conv1" else 1, "dilation": 1, "group": 1}
            expected |= {} if name == head else {"pad": int(part.endswith("3x3"))}  # conv10's is read by _padding
            changes += _other_values(reader, layer, _CONVOLUTION, expected)
        elif kind == "Pooling" and place is None:
            is_averaged = True
            changes += _other_values(reader, layer, _POOLING, _AVERAGE)
        elif kind == "Pooling":
            pool_after.append(place)
            changes += _other_values(reader, layer, _POOLING, _MAX_POOL)
        elif kind == "Eltwise":
            added.append(place)
            changes += _other_values(reader, layer, _ELTWISE, {"operation": 1, "coeff": 1})
        elif kind == "ReLU":
            changes += _other_values(reader, layer, _RELU, {"negative_slope": 0})
        elif kind not in _BEFORE_RELU and not (is_averaged and kind in _BEHIND_AVERAGE):
            changes.append(f"it has the layer {name:.40} ({kind!s:.40}), of which weights say nothing")
    if net is not None:
        bypass = "complex" if any(str(part).endswith("_bypass1x1") for part in ours.values()) else "simple"
        changes += _other_places(net, pool_after, added, bypass, trunk_only)
    if not (is_averaged or trunk_only):
        changes.append("it ends before pool10, the average of conv10's map")
    convolutions = {name for name, known in ours.items() if known} | (set() if trunk_only else {head})
    return changes + [f"{name:.80} has no ReLU behind it" for name in _linear(layers, head, convolutions)]


def _other_places(
    net: Metaparameters, pool_after: list[int], added: list[int], bypass: str, trunk_only: bool
) -> list[str]:
    """Says where max pools and bypasses are if not in the places of the version `net`, in a clause for each."""
    changes = []
    if tuple(pool_after) != net.pool_after:
        changes.append(f"it has max pools behind {pool_after[:9]}, expected {list(net.pool_after)}")
    kinds = zip(net.fire_modules(), bypass_kinds(net, bypass), strict=True)
    around = [fire.number for fire, kind in kinds if kind]
    # The last addition may come after the trunk's last layer with weights.
    if added and added != (around[: len(added)] if trunk_only else around):
        changes.append(f"it has bypasses around fire modules {added[:9]}, expected {around}")
    return changes


def _linear(layers: list[_Layer], head: str, convolutions: set[str]) -> list[str]:
    """The convolutions whose values are read by something other than a ReLU, or by nothing."""
    waiting: dict[str, str | None] = {}  # blob -> one of the convolutions in it, maybe many, that no ReLU has read
    unread, found = set(), []
    for layer in layers:
        convolution = next(filter(None, map(waiting.get, layer.bottoms)), None)
        passes = layer.type in _BEFORE_RELU and not (layer.type == "Pooling" and convolution == head)
        if convolution and layer.type != "ReLU" and not passes:
            found.append(convolution)
        unread = (unread - {*layer.bottoms}) | {*layer.tops}
        convolution = convolution if passes else layer.name if layer.name in convolutions else None
        waiting |= dict.fromkeys(layer.tops, convolution)
    return found + sorted(filter(None, map(waiting.get, unread)))


def _other_values(
    reader: WireReader, layer: _Layer, fields: Mapping[str, tuple], expected: Mapping[str, int]
) -> list[str]:
    """Names numbers of a layer's parameters that are not as expected, in a clause for each."""
    numbers = _numbers(reader, layer.parameters.get(layer.type, memoryview(b"")), fields)
    texts = {name: ", ".join(f"{number:g}" for number in sorted({*values})[:4]) for name, values in numbers.items()}
    return [
        f"{layer.name:.80} has {name}={texts[name]}, expected {value}"
        for name, value in expected.items()
        if {*numbers[name]} != {value}
    ]


def _layer(path: str | os.PathLike, reader: WireReader, layer: memoryview, fields: dict[int, str]) -> _Layer:
    name, kind, blobs, bottoms, tops, parameters = "", None, [], [], [], {}
    for number, wire_type, value in reader.fields(layer):
        field = fields.get(number)
        if field == "type":
            kind = _V1_TYPES.get(value, f"type {value}") if wire_type == VARINT else _text(value)
        elif field is None or wire_type != BYTES:
            continue
        elif field == "name":
            name = _text(value)
        elif field == "blobs":
            blobs.append(value)
        elif field in ("bottoms", "tops"):
            (bottoms if field == "bottoms" else tops).append(_text(value))
        else:
            parameters[field] = value
    if len(blobs) not in (0, 2):
        raise WeightsFileError(f"{path}: layer {name!r} must have a kernel and a bias, got {len(blobs)} blobs.")
    return _Layer(
        name, kind, tuple(bottoms), tuple(tops), dict(zip(("kernel", "bias"), blobs, strict=False)), parameters
    )


def _text(value: memoryview) -> str:
    return bytes(value[:200]).decode("utf-8", "replace")


def _keras_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in Keras of a kernel (out, in, height, width), or of a dense layer's (out, in) or (1, 1, out, in)."""
    return hwio_shape(shape[2:] if len(shape) == 4 and shape[:2] == (1, 1) else shape)


def _blob(
    path: str | os.PathLike, reader: WireReader, name: str, blob: memoryview, ours: str | None
) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape (out, in, height, width) or (out,), and the values, still flat and not yet copied."""
    legacy, shape, values = [1, 1, 1, 1], None, None
    for number, wire_type, value in reader.fields(blob):
        if number in _LEGACY_SHAPE and wire_type == VARINT:
            legacy[_LEGACY_SHAPE[number]] = value
        elif number == 7 and wire_type == BYTES:
            shape = [
                dim
                for field, dim_type, dims in reader.fields(value)
                if field == 1
                for dim in reader.varints(dim_type, dims)
            ]
        elif number in _DATA:
            dtype = _DATA[number]
            if values is not None or wire_type != BYTES or len(value) % dtype.itemsize:
                raise WeightsFileError(f"{path}: {name} must have one packed list of floats; the file is damaged.")
            values = np.frombuffer(value, dtype)
    if values is None:
        raise WeightsFileError(f"{path}: {name} has no values.")
    if shape is None:
        # Caffe's older files give every blob four dimensions.
        shape = legacy[3:] if name.endswith("/bias") and legacy[:3] == [1, 1, 1] else legacy
    if ours:
        check_kernel_rank(path, name, shape)
    return tuple(shape), values
