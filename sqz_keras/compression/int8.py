"""Weights for a network whose weights and activations are all stored in 8 bits, as in LiteRT and other runtimes.

1. Channels are equalised (as weights are in arXiv 1906.04721, section 4.1): a ReLU lets positive factors through, so a
   channel is divided by a power of the largest value that it takes on the images, and the next layers' weights are
   multiplied by it. The float network answers as before, and all channels fill the single range of their tensor.
2. A tensor's range ends a little below its largest value. A few values lose accuracy there, and all others gain finer
   steps. The factors put that end at 6, so that a calibrator sees it if a ReLU6 replaces the ReLU.
3. Each filter is rounded to the 255 steps that it will get, with compensation, and its bias corrects the remaining
   error of the mean output. Without this, equalised weights lose more than the activations gain.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sqz_keras.architecture.layers import IMAGES
from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.compression.activations import layer_statistics
from sqz_keras.compression.compensation import round_filters
from sqz_keras.models.squeezenet import build

Arrays = dict[str, np.ndarray]
LEVELS = 127
CLIP = 6.0
# Chosen with the authors' v1.0, in a simulation on 100 images that was calibrated on 100 others. The divergence due to
# 8-bit activations was 0.0079 with full equalisation and no clipping, 0.0066 with this power, and 0.0052 with this end
# of the range as well (0.0062 with an end of 0.8).
_POWER = 0.8
_END = 0.9
_LEAST = 1e-3  # of a tensor's largest value: smaller channels, dead ones among them, count as this large


def prepare(spec: ModelSpec, arrays: Mapping[str, np.ndarray], images: np.ndarray) -> Arrays:
    """Weights with which the network answers nearly as before, and still does in 8 bits.

    The convolutions that `clipped` names must be followed by a ReLU6.

    Args:
        spec: The model. With bypasses only the squeeze layers' channels are equalised; additions tie all others.
        arrays: The model's weights by name.
        images: Float32 (N, S, S, C), as the network takes them: about a hundred unlabelled images.

    Returns:
        Float32 arrays; each filter of a kernel is integers in -127..127 times 1/127 of its largest weight.
    """
    statistics = layer_statistics(build(spec, dict(arrays)), images)
    multipliers, divisors = _factors(spec, {name: largest for name, (_, _, largest) in statistics.items()})
    result = {}
    for name, (covariance, mean, _) in statistics.items():
        kernel = arrays[f"{name}/kernel"].astype(np.float64)
        factors = np.tile(multipliers.get(name, np.ones(kernel.shape[2])), kernel.shape[0] * kernel.shape[1])
        divisor = divisors.get(name, np.ones(kernel.shape[3]))
        weights = kernel.reshape(len(factors), -1) * factors[:, None] / divisor
        rounded = round_filters(weights, covariance / np.outer(factors, factors), LEVELS)
        correction = (mean / factors) @ (weights - rounded)
        result[f"{name}/kernel"] = rounded.reshape(kernel.shape).astype(np.float32)
        result[f"{name}/bias"] = (arrays[f"{name}/bias"] / divisor + correction).astype(np.float32)
    return result


def clipped(spec: ModelSpec) -> list[str]:
    """The convolutions whose outputs are clipped at `CLIP`: those whose channels can be scaled."""
    free = {name for producers, _ in _free_channels(spec) for name in producers}
    return [layer.name for layer in spec.layers() if layer.name in free]


def _free_channels(spec: ModelSpec) -> list[tuple[list[str], list[str]]]:
    """Convolutions whose concatenated outputs are the inputs of other convolutions: pairs of producers and consumers.

    Only pools and concatenations lie between them. An addition ties the channels of its inputs, so in a net with
    bypasses only pairs inside a fire module count: its squeeze layer and its expand layers.
    """
    layers = {layer.name: layer for layer in spec.layers()}

    def producers(name: str) -> tuple[str, ...]:
        layer = layers.get(name)
        if layer is None or layer.kind in ("convolution", "addition"):
            return (name,)
        return tuple(producer for source in layer.inputs for producer in producers(source))

    ties = any(layer.kind == "addition" for layer in layers.values())
    pairs: dict[tuple[str, ...], list[str]] = {}
    for layer in layers.values():
        if layer.kind == "convolution":
            sources = producers(layer.inputs[0])
            if sources != (IMAGES,) and not (ties and any(layers[name].block != layer.block for name in sources)):
                pairs.setdefault(sources, []).append(layer.name)
    return [(list(sources), consumers) for sources, consumers in pairs.items()]


def _factors(spec: ModelSpec, largest: Mapping[str, np.ndarray]) -> tuple[Arrays, Arrays]:
    """For each layer, the factors that multiply its input channels and those that divide its output channels."""
    multipliers, divisors = {}, {}
    for producers, consumers in _free_channels(spec):
        values = np.concatenate([largest[name] for name in producers])
        top = values.max()
        factors = np.ones_like(values)
        if top > 0:
            factors = np.maximum(values / top, _LEAST) ** _POWER * (_END * top / CLIP)
        multipliers |= dict.fromkeys(consumers, factors)
        ends = np.cumsum([len(largest[name]) for name in producers])
        divisors |= zip(producers, np.split(factors, ends[:-1]), strict=True)
    return multipliers, divisors
