"""The network that the config of a saved Keras model describes; the config is parsed as JSON, and nothing is built."""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping

from sqz_keras.architecture.layers import Layer
from sqz_keras.architecture.metaparameters import FireFilters, fit_metaparameters
from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.weights.arrays import WeightsFileError
from sqz_keras.weights.description import Hints, Stated
from sqz_keras.weights.readers.keras_others import (
    CEIL_MODE,
    HARMLESS,
    changes_of_others,
    origin,
    other_values,
    pools_drop_rows,
)
from sqz_keras.weights.records import authors_preprocessing

# The class of a layer in a config, by the layer's kind in `ModelSpec.layers()`.
_CLASSES = {
    "convolution": "Conv2D",
    "max pool": "MaxPooling2D",
    "concatenation": "Concatenate",
    "addition": "Add",
    "average": "GlobalAveragePooling2D",
}
_BESIDE = re.compile(r"drop9|pool\d+_pad|conv10_pad|pool10|predictions")  # layers allowed beside those
_ONLY_OURS = re.compile(r"pool\d+_pad|predictions")  # layers by which this project's networks are recognised


def describe(path: str | os.PathLike, config: object, trunk_only: bool = False) -> Stated | Hints | None:
    """What a Keras model's config says about its network.

    The network may be inside another model, such as a Sequential.

    Args:
        path: Named in errors.
        config: The parsed JSON of `config.json` in a `.keras` file, or of an `.h5` file's attribute `model_config`.
        trunk_only: Whether layers before and after the trunk do not matter.

    Returns:
        The description of a network of this project, with the authors' preprocessing and no labels, because a config
        does not state these; what is known about another project's SqueezeNet; None for the config of another model.

    Raises:
        WeightsFileError: The layers have the names of a SqueezeNet's, ours or another project's, but one of them
            computes something else, or another layer is between them.
    """
    try:
        listed = list(_innermost(config))
        classes = {layer["config"]["name"]: str(layer["class_name"]) for layer in listed}
        layers = {layer["config"]["name"]: layer["config"] for layer in listed}
        edges = list(_edges(config))
        reads, read_by = _grouped((reader, source) for source, reader in edges), _grouped(edges)
        ends = reads.get((config["config"].get("name"),), [])
        is_ours = any(map(_ONLY_OURS.fullmatch, layers))
    except (KeyError, IndexError, TypeError, AttributeError):
        return None
    if "conv1" not in layers:
        return None
    stated = None
    if is_ours:
        with contextlib.suppress(KeyError, IndexError, TypeError, ValueError, AttributeError):
            spec = _spec(layers, _input_shape(listed))
            activation = layers.get("predictions", {}).get("activation", "linear") if "conv10" in layers else None
            ours = {layer.name: layer for layer in spec.layers() if layer.name in layers}
            if trunk_only:
                ours = {name: layer for name, layer in ours.items() if layer.block not in ("conv10", "pool10")}
            changes = _changes(ours, classes, layers, trunk_only) + _changes_of_reads(ours, reads, ends)
            stated = Stated(spec, is_whole=False, activation=activation)
    if stated is None:
        changes = changes_of_others(classes, layers, reads, read_by, trunk_only)
        stated = Hints(_input_size(listed), conv10_padding=0, has_bypass=False)  # other values are refused as changes
    if changes:
        raise WeightsFileError(
            f"{path}: its network is not a SqueezeNet: {changes[0]}. Open it with keras.saving.load_model, or save the "
            "network alone, without the change."
        )
    if isinstance(stated, Hints) and pools_drop_rows(listed):
        warnings.warn(
            f"{path}: its max pools round down, and this project's round up, as the authors' do: check the accuracy, "
            "or train them further.",
            stacklevel=2,
        )
    return stated


def _innermost(model: Mapping) -> Iterator[Mapping]:
    """The layers of a model, including those of models inside it, in the order of the config."""
    for layer in model["config"]["layers"]:
        if "layers" in layer["config"]:
            yield from _innermost(layer)
        else:
            yield layer


def _edges(model: Mapping) -> Iterator[tuple[object, object]]:
    """What is read and what reads it, for all layers of a model and of the models inside it, in the config's order.

    A model's input is its name; its output is a tuple with that name.
    """
    config = model["config"]
    names = [layer["config"]["name"] for layer in config["layers"]]
    outputs = dict(zip(names, names, strict=True))
    for name, layer in zip(names, config["layers"], strict=True):
        if "layers" in layer["config"]:
            outputs[name] = (name,)
            yield from _edges(layer)
    for before, name, layer in zip([None, *names], names, config["layers"], strict=False):
        # A layer of a Sequential does not say what it reads: the layer before it.
        sources = _sources(layer["inbound_nodes"]) if "inbound_nodes" in layer else [before]
        yield from ((outputs[source], name) for source in sources if source in outputs)
    lasts = _sources(config["output_layers"]) if "output_layers" in config else names[-1:]
    yield from ((outputs[last], (config.get("name"),)) for last in lasts if last in outputs)
    firsts = _sources(config["input_layers"]) if "input_layers" in config else names[:1]
    yield from ((config.get("name"), first) for first in firsts)


def _grouped(pairs: Iterable[tuple[object, object]]) -> dict[object, list]:
    """The second items by the first ones, in order."""
    groups: dict[object, list] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def _sources(node: object) -> Iterator[str]:
    """The layers that a node reads: Keras 2 writes lists that begin with a name, Keras 3 dicts."""
    if isinstance(node, Mapping) and "keras_history" in node:
        yield str(node["keras_history"][0])
    elif isinstance(node, list) and node and isinstance(node[0], str):
        yield node[0]
    elif isinstance(node, list | Mapping):
        for inner in node.values() if isinstance(node, Mapping) else node:
            yield from _sources(inner)


def _input_shape(listed: list[Mapping]) -> list:
    """Height, width and channels of the last input before conv1; an outer model's input comes earlier."""
    at = [layer["config"]["name"] for layer in listed].index("conv1")
    last = [layer["config"] for layer in listed[:at] if layer["class_name"] == "InputLayer"][-1]
    shape = (last.get("batch_shape") or last["batch_input_shape"])[1:]  # Keras 3's, and Keras 2's
    return shape[1:] + shape[:1] if listed[at]["config"].get("data_format") == "channels_first" else shape


def _input_size(listed: list[Mapping]) -> int | None:
    """The side of a square input, in pixels; None if it is not square, or any size will do."""
    with contextlib.suppress(KeyError, IndexError, TypeError):
        height, width = _input_shape(listed)[:2]
        return height if height == width and isinstance(height, int) else None


def _spec(layers: Mapping[str, Mapping], shape: list) -> ModelSpec:
    numbers = sorted(int(name[4:-7]) for name in layers if name.startswith("fire") and name.endswith("_concat"))
    net = fit_metaparameters(
        [
            FireFilters(n, *(layers[f"fire{n}_{part}"]["filters"] for part in ("squeeze1x1", "expand1x1", "expand3x3")))
            for n in numbers
        ],
        stem_filters=layers["conv1"]["filters"],
        stem_kernel=layers["conv1"]["kernel_size"][0],
        pool_after=tuple(n for n in (1, *numbers) if f"pool{n}" in layers),
    )
    if net is None:
        raise ValueError("these filters follow from no metaparameters")
    bypass = None
    if any(f"fire{n}_add" in layers for n in numbers):
        bypass = "complex" if any(f"fire{n}_bypass1x1" in layers for n in numbers) else "simple"
    padding = layers["conv10_pad"]["padding"] if "conv10_pad" in layers else [[0, 0], [0, 0]]
    size = shape[0] if shape[0] == shape[1] and shape[0] else ModelSpec().input_size  # a ModelSpec needs a size
    if padding != [[padding[0][0]] * 2] * 2:
        raise ValueError("a ModelSpec has one padding")
    return ModelSpec(
        version=None,
        bypass=bypass,
        metaparameters=net,
        classes=layers["conv10"]["filters"] if "conv10" in layers else ModelSpec().classes,
        input_size=size,
        channels=shape[2],
        preprocessing=authors_preprocessing(size),
        conv10_padding=padding[0][0],
    ).with_net()


def _changes(
    ours: Mapping[str, Layer], classes: Mapping[str, str], layers: Mapping[str, Mapping], trunk_only: bool
) -> list[str]:
    """Says where the layers differ from those of the spec's network, in a clause for each difference."""
    changes = []
    for name, layer in ours.items():
        expected = {"data_format": layers["conv1"].get("data_format")}
        if layer.kind in ("convolution", "max pool"):
            expected["strides"] = [layer.stride] * 2
        if layer.kind == "convolution":
            padding = "same" if layer.kernel == 3 and layer.padding else "valid"
            expected |= {"kernel_size": [layer.kernel] * 2, "dilation_rate": [1, 1], "groups": 1}
            expected |= {"padding": padding, "activation": "relu", "use_bias": True}
        if layer.kind == "max pool":
            expected |= {"pool_size": [layer.kernel] * 2, "padding": "valid"}
            if layers.get(f"{name}_pad", {}).get("padding") != CEIL_MODE:
                changes.append(f"{name} must be behind {name}_pad, a ZeroPadding2D of {CEIL_MODE}")
        if classes[name] != _CLASSES[layer.kind]:
            changes.append(f"{name} is a {classes[name]!s:.40}, expected a {_CLASSES[layer.kind]}")
        changes += other_values(layers[name], expected)
    if trunk_only:
        return changes
    for name, kind in classes.items():
        if not (name in ours or _BESIDE.fullmatch(name) or HARMLESS.fullmatch(kind)):
            changes.append(f"it has the layer {name!s:.40} ({kind!s:.40}), of which weights say nothing")
    if classes.get("predictions", "Activation") != "Activation":
        changes.append(f"predictions is a {classes['predictions']!s:.40}, expected an Activation")
    return changes


def _changes_of_reads(ours: Mapping[str, Layer], reads: Mapping[object, list], ends: list) -> list[str]:
    """Says which layers read others than those of the spec's network do, in a clause for each."""
    changes = []
    for name, layer in ours.items():
        expected = [source if source in ours else "images" for source in layer.inputs]
        actual = [str(origin(source, reads, ours) or "images") for source in reads.get(name, ())]
        if actual != expected:
            changes.append(f"{name} reads {', '.join(actual)[:80]}, expected {', '.join(expected)}")
    if "conv10" in ours and "pool10" not in [origin(end, reads, ours) for end in ends]:
        changes.append("it ends before pool10, the average of conv10's map")
    return changes
