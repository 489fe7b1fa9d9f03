"""Rounding a whole network: in net order, each layer fitted to the rounded layers before it, or each layer alone."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from sqz_keras.backend import check_is_tensorflow
from sqz_keras.extras import needs

with needs("tensorflow"):
    import keras

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.compression import activations
from sqz_keras.compression.activations import Moments
from sqz_keras.compression.layer_inputs import LayerInputs
from sqz_keras.models.squeezenet import build
from sqz_keras.weights.arrays import check_shapes

Arrays = dict[str, np.ndarray]
_NEARLY_DENSE = 0.9  # a layer of at least this density has no pruning mask to keep


class Rounding(NamedTuple):
    """How arrays are rounded.

    Args:
        kernel: Function from a name, (K, O) weights and the moments of their inputs to the rounded weights.
        bias: Function from a name and the bias to the rounded bias.
    """

    kernel: Callable[[str, np.ndarray, Moments], np.ndarray]
    bias: Callable[[str, np.ndarray], np.ndarray]


def kept_weights(kernel: np.ndarray) -> np.ndarray:
    """Bool (inputs, filters): which weights may differ from 0."""
    kept = kernel.reshape(-1, kernel.shape[-1]) != 0
    return kept | (kept.mean() >= _NEARLY_DENSE)


def check_inputs(spec: ModelSpec, arrays: Arrays, images: np.ndarray) -> None:
    """Refuses arguments and settings with which a net cannot be rounded.

    Raises:
        ValueError: The arrays or images do not fit the spec, or Keras has the wrong backend or image data format.
    """
    check_shapes("arrays", arrays, spec.weight_shapes())
    shape = (spec.input_size, spec.input_size, spec.channels)
    if images.ndim != 4 or images.shape[1:] != shape or not len(images) or images.dtype != np.float32:
        raise ValueError(
            f"images must be float32 (N, {', '.join(map(str, shape))}), got {images.dtype} {images.shape}."
        )
    check_is_tensorflow("Quantisation")
    if keras.config.image_data_format() != "channels_last":
        raise ValueError("Quantisation needs Keras's image data format to be channels_last.")


def round_net(
    spec: ModelSpec,
    arrays: Arrays,
    before: keras.Model,
    images: np.ndarray,
    rounding: Rounding,
    report: Callable[[str], None],
    fixed: Mapping[str, np.ndarray] = types.MappingProxyType({}),
) -> tuple[Arrays, Moments | None]:
    """Rounds layers in net order, each fitted to the rounded layers before it; layers in `fixed` are taken from there.

    Returns:
        The rounded arrays, and the moments of the last layer, or None if it is fixed.
    """
    after, result, moments = build(spec, arrays), {}, None
    layers = activations.convolutions(after)
    inputs_before, inputs_after = (LayerInputs(model, spec.layers(), images) for model in (before, after))
    for number, layer in enumerate(layers, 1):
        report(f"rounding {layer.name}, {number} of {len(layers)}")
        if f"{layer.name}/kernel" in fixed:
            rounded, moments = {name: fixed[name] for name in (f"{layer.name}/kernel", f"{layer.name}/bias")}, None
        else:
            inputs, before_inputs = inputs_after.of(layer.name), inputs_before.of(layer.name)
            moments = activations.input_moments(inputs, layer, arrays[f"{layer.name}/kernel"], before_inputs)
            rounded = round_layer(arrays, layer.name, moments, rounding)
        layer.set_weights(list(rounded.values()))
        result |= rounded
    return result, moments


def round_alone(
    spec: ModelSpec,
    arrays: Arrays,
    before: keras.Model,
    images: np.ndarray,
    rounding: Rounding,
    report: Callable[[str], None],
) -> Arrays:
    """Rounds each layer as if the others were not rounded."""
    result, inputs = {}, LayerInputs(before, spec.layers(), images)
    layers = activations.convolutions(before)
    for number, layer in enumerate(layers, 1):
        report(f"rounding {layer.name} by itself, {number} of {len(layers)}")
        moments = activations.input_moments(inputs.of(layer.name), layer, arrays[f"{layer.name}/kernel"])
        result |= round_layer(arrays, layer.name, moments, rounding)
    return result


def round_layer(arrays: Arrays, layer: str, moments: Moments, rounding: Rounding) -> Arrays:
    """A layer's rounded kernel and bias by name."""
    kernel, bias = f"{layer}/kernel", f"{layer}/bias"
    weights = arrays[kernel].reshape(-1, arrays[kernel].shape[-1])
    rounded = rounding.kernel(kernel, weights, moments).astype(np.float32)
    correction = (moments.mean_target - moments.mean_input @ rounded).astype(np.float32)
    return {kernel: rounded.reshape(arrays[kernel].shape), bias: rounding.bias(bias, arrays[bias] + correction)}
