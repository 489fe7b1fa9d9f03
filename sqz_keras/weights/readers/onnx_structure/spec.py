"""The description of an ONNX file's model: from its metadata, or from its graph."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import typing
import warnings
from collections.abc import Iterable, Mapping

import numpy as np

from sqz_keras.architecture.colours import COLOURS, TORCH_MEANS, TORCH_STDS
from sqz_keras.architecture.layers import BYPASSES, bypass_kinds
from sqz_keras.architecture.metaparameters import FireFilters, Metaparameters, fit_metaparameters
from sqz_keras.architecture.spec import MAX_JSON_BYTES, ModelSpec, Preprocessing, hash_arrays
from sqz_keras.weights.arrays import WeightsFileError
from sqz_keras.weights.description import SPEC_KEY
from sqz_keras.weights.records import authors_preprocessing

if typing.TYPE_CHECKING:
    import onnx

    from sqz_keras.weights.readers.onnx_structure.network import Colours
    from sqz_keras.weights.readers.onnx_structure.walk import Structure

_TORCH_IN_0_1 = ((0, 1, 2), 1 / np.array(TORCH_STDS), -np.divide(TORCH_MEANS, TORCH_STDS))  # images in 0..1
_TORCH_PRODUCERS = ("pytorch", "mxnet", "gluon")


def described_spec(
    path: str | os.PathLike,
    metadata: Iterable[onnx.StringStringEntryProto],
    structure: Structure,
    arrays: Mapping[str, np.ndarray],
) -> ModelSpec | None:
    """The description in a file's metadata; None if it has none of ours.

    Raises:
        WeightsFileError: it is malformed, or describes a different model from the graph does.
    """
    values = [entry.value for entry in metadata if entry.key == SPEC_KEY]
    if not values:
        return None
    if len(values) > 1 or len(values[0]) > MAX_JSON_BYTES:
        raise WeightsFileError(f"{path}: its metadata has {len(values)} descriptions, or one that is too long.")
    try:
        spec = ModelSpec.from_json(json.loads(values[0]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsFileError(f"{path}: its metadata describes no model of this project: {error!s:.200}") from error
    mode = _mode(path, structure.colours)
    whole = "conv10/bias" in arrays
    facts = {
        "pools": (spec.metaparameters.pool_after, structure.pool_after),
        "bypasses": (bypass_kinds(spec.metaparameters, spec.bypass), structure.bypasses),
        "channels": (spec.channels, arrays["conv1/kernel"].shape[2]),
        "input_size": (spec.input_size, structure.input_size or spec.input_size),
        "preprocessing": (spec.preprocessing.mode, mode or "none in the graph"),
        "conv10's padding": (spec.conv10_padding, structure.conv10_padding if whole else spec.conv10_padding),
        "classes": (spec.classes, arrays["conv10/bias"].size if whole else spec.classes),
    }
    for name, (described, actual) in facts.items():
        if described != actual:
            raise WeightsFileError(
                f"{path}: its metadata describes a different model from its graph: {name} {described} in the metadata, "
                f"{actual} in the graph. Export the model again."
            )
    if whole and spec.weights_sha256 not in (None, hash_arrays(arrays)):
        raise WeightsFileError(
            f"{path}: the weights are not those whose hash its metadata states. Export the model again."
        )
    return spec


def inferred_spec(
    path: str | os.PathLike,
    structure: Structure,
    arrays: Mapping[str, np.ndarray],
    producer: str,
    known: ModelSpec | None,
) -> ModelSpec:
    """The description that follows from a graph.

    Args:
        path: named in errors.
        structure: the structure of the graph.
        arrays: the graph's weights.
        producer: what the file says about the program that wrote it; PyTorch and MXNet imply torchvision's colours,
            unless channels come last between convolutions: then the network is Keras's, on PyTorch.
        known: what is known about these weights: labels, and colours unless the graph has its own; its metaparameters
            are tried first.

    Raises:
        WeightsFileError: the graph is not a member of SqueezeNet's family.
    """
    net = _metaparameters(path, structure, arrays, known)
    bypass = _bypass(path, structure, net, known)
    options = {"conv10_padding": structure.conv10_padding} if "conv10/bias" in arrays else {}
    mode = _mode(path, structure.colours)
    if known is not None and known.weights_sha256 is not None:
        preprocessing = known.preprocessing
        options |= {"labels": known.labels, "input_size": known.input_size, "classes": known.classes}
    else:
        if structure.leaves_rest:
            warnings.warn(
                f"{path}: its max pools round down, and this project's round up, as the authors' do. At "
                f"{structure.input_size or 'some numbers of'} pixels the two differ: check the accuracy, or train them "
                "further.",
                stacklevel=2,
            )
        is_torch = _is_torch(structure, producer)
        torch = mode == "torch" or (mode is None and is_torch)
        size = structure.input_size or (224 if torch else 227)
        kind = ("torch", "shortest_side") if torch else (mode or "authors", "stretch")
        # Only torchvision resizes with antialiasing.
        resize_to = authors_preprocessing(size).resize_to
        preprocessing = Preprocessing(*kind, resize_to, antialias=is_torch and "pytorch" in producer.lower())
        options["input_size"] = size
        if "conv10/bias" in arrays:
            options["classes"] = int(arrays["conv10/bias"].size)
    if mode not in (None, preprocessing.mode):
        preprocessing = dataclasses.replace(preprocessing, mode=mode)
    options |= {"channels": arrays["conv1/kernel"].shape[2], "preprocessing": preprocessing}
    return ModelSpec(None, bypass, net, **options).with_net()  # which names the version, if it is one


def tells_colours(path: str | os.PathLike, structure: Structure, producer: str) -> bool:
    """Whether a graph, or the program that wrote it, tells how the colours of images are prepared."""
    return _is_torch(structure, producer) or _mode(path, structure.colours) is not None


def _is_torch(structure: Structure, producer: str) -> bool:
    return not structure.channels_last and any(name in producer.lower() for name in _TORCH_PRODUCERS)


def _metaparameters(
    path, structure: Structure, arrays: Mapping[str, np.ndarray], known: ModelSpec | None
) -> Metaparameters:
    """The metaparameters that give the graph's filters and pools."""
    kernel = arrays["conv1/kernel"].shape
    fires = tuple(
        FireFilters(
            number, *(arrays[f"fire{number}_{part}/bias"].size for part in ("squeeze1x1", "expand1x1", "expand3x3"))
        )
        for number in range(2, 2 + len(structure.bypasses))
    )
    net = fit_metaparameters(
        fires,
        candidates=[known.metaparameters] if known else [],
        stem_filters=kernel[3],
        stem_kernel=kernel[0],
        pool_after=structure.pool_after,
    )
    if net is None:
        raise WeightsFileError(
            f"{path}: no metaparameters give its {len(fires)} fire modules (paper, section 5.1): {fires[:3]}, ..."
        )
    return net


def _bypass(path, structure: Structure, net: Metaparameters, known: ModelSpec | None) -> str | None:
    """The bypass of the structure. If all channels match, complex equals simple, so the known one is tried first."""
    for bypass in (*([known.bypass] if known else []), *BYPASSES):
        with contextlib.suppress(ValueError):  # this network has no such bypass
            if bypass_kinds(net, bypass) == structure.bypasses:
                return bypass
    around = [f"fire{number}" for number, kind in enumerate(structure.bypasses, start=2) if kind]
    raise WeightsFileError(
        f"{path}: it has bypasses around {', '.join(around[:9])}, which is neither the simple nor the complex "
        "bypass of the paper (figure 2)."
    )


def _mode(path: str | os.PathLike, colours: Colours) -> str | None:
    """The mode of the preprocessing that a graph does itself; None if it does none.

    Raises:
        WeightsFileError: its preprocessing is not that of any mode.
    """
    channels = len(colours.order)
    if _close(colours, (tuple(range(channels)), np.ones(channels), np.zeros(channels))):
        return None
    for mode, expected in (*COLOURS.items(), ("torch", _TORCH_IN_0_1)):
        if channels == 3 and _close(colours, expected):
            return mode
    raise WeightsFileError(
        f"{path}: its graph prepares the colours of images in a way that no mode of preprocessing does: order "
        f"{colours.order}, scale {colours.scale.round(5).tolist()}, shift {colours.shift.round(5).tolist()}. Export "
        "the network without it."
    )


def _close(actual, expected) -> bool:
    return actual[0] == expected[0] and all(
        np.allclose(a, b, rtol=2e-3, atol=1e-6) for a, b in zip(actual[1:], expected[1:], strict=True)
    )
