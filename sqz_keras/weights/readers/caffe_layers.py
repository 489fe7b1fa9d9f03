"""The layers of a `.caffemodel`: what is read of a layer, and whether all of them compute what a SqueezeNet does.

The numbers of the tables are those of fields in the public message layout (caffe.proto).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

import numpy as np

from sqz_keras.architecture.layers import bypass_kinds
from sqz_keras.architecture.metaparameters import Metaparameters
from sqz_keras.protobuf import BYTES, VARINT
from sqz_keras.weights.arrays import WeightsFileError, fire_number, layer_name
from sqz_keras.weights.readers.wire import WireReader

# Field of NetParameter that holds layers (2: V1LayerParameter, 100: LayerParameter) -> the fields of these layers that
# are read. A field named after a type says what a layer of this type computes: ConvolutionParameter and so on.
# TransformationParameter is what a layer that reads images does to them.
LAYERS = {
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
# What a layer computes, for `numbers_of`.
CONVOLUTION = {"pad": (3, 9, 10, 0), "stride": (6, 13, 14, 1), "dilation": (18, 18, 18, 1), "group": (5, 5, 5, 1)}
_POOLING = {"pool": (1, 1, 1, 0), "kernel_size": (2, 5, 6, 0), "stride": (3, 7, 8, 1), "pad": (4, 9, 10, 0)}
_POOLING |= {"global_pooling": (12, 12, 12, 0), "round_mode": (13, 13, 13, 0)}
_ELTWISE = {"operation": (1, 1, 1, 1), "coeff": (2, 2, 2, 1.0)}
_RELU = {"negative_slope": (1, 1, 1, 0.0)}
# 0 is MAX and 1 AVE; 0 is CEIL.
_MAX_POOL = {"pool": 0, "kernel_size": 3, "stride": 2, "pad": 0, "global_pooling": 0, "round_mode": 0}
_AVERAGE = {"pool": 1, "global_pooling": 1}


@dataclasses.dataclass(frozen=True)
class Layer:
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


def read_layer(path: str | os.PathLike, reader: WireReader, layer: memoryview, fields: dict[int, str]) -> Layer:
    """A layer from its message; `fields` is a value of `LAYERS`."""
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
    return Layer(
        name, kind, tuple(bottoms), tuple(tops), dict(zip(("kernel", "bias"), blobs, strict=False)), parameters
    )


def _text(value: memoryview) -> str:
    return bytes(value[:200]).decode("utf-8", "replace")


def numbers_of(reader: WireReader, message: memoryview, fields: Mapping[str, tuple]) -> dict[str, list[float]]:
    """The numbers of a message by name.

    Args:
        reader: reads the message.
        message: a layer's parameters.
        fields: name -> field for all sides, fields for height and width, and the default; its type tells floats from
            integers.
    """
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


def changes_of(
    reader: WireReader, layers: list[Layer], head: str, net: Metaparameters | None, trunk_only: bool
) -> list[str]:
    """Says where the layers are not a SqueezeNet's, in a clause for each place.

    Args:
        reader: reads the layers' parameters.
        layers: all layers, in the order of the file.
        head: name of the layer that is conv10.
        net: the version whose conv1 the file has; None for another conv1.
        trunk_only: whether layers after the trunk do not matter.
    """
    ours = {layer.name: layer_name(layer.name) for layer in layers if layer.blobs and layer.name != head}
    trunk = [at for at, layer in enumerate(layers) if ours.get(layer.name)]
    changes, pool_after, added, place, is_averaged = [], [], [], 1, False
    made_by: dict[str, str] = {}  # blob -> our name of the convolution whose values it holds
    for layer in layers[: max(trunk, default=-1) + 1] if trunk_only else layers:
        name, kind = layer.name, layer.type
        if not layer.bottoms or kind == "Silence":  # a source of images or labels
            continue
        sources = [made_by.get(bottom, "another layer") for bottom in layer.bottoms]
        made_by |= dict.fromkeys(layer.tops, ours.get(name) or (sources[0] if len(sources) == 1 else "another layer"))
        if kind == "Convolution":
            part = ours.get(name) or ""
            place = None if name == head else fire_number(part) or place
            expected = {"stride": 2 if part == "conv1" else 1, "dilation": 1, "group": 1}
            expected |= {} if name == head else {"pad": int(part.endswith("3x3"))}  # conv10's is read by caffe.py
            changes += _other_values(reader, layer, CONVOLUTION, expected)
        elif kind == "Concat" and sources != [f"fire{place}_expand1x1", f"fire{place}_expand3x3"]:
            changes.append(f"{name:.80} joins {', '.join(sources)[:80]}, expected expand1x1 and expand3x3")
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


def _linear(layers: list[Layer], head: str, convolutions: set[str]) -> list[str]:
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
    reader: WireReader, layer: Layer, fields: Mapping[str, tuple], expected: Mapping[str, int]
) -> list[str]:
    """Names numbers of a layer's parameters that are not as expected, in a clause for each."""
    numbers = numbers_of(reader, layer.parameters.get(layer.type, memoryview(b"")), fields)
    texts = {name: ", ".join(f"{number:g}" for number in sorted({*values})[:4]) for name, values in numbers.items()}
    return [
        f"{layer.name:.80} has {name}={texts[name]}, expected {value}"
        for name, value in expected.items()
        if {*numbers[name]} != {value}
    ]
