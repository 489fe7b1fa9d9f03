"""Weights for a network whose weights and activations are all held in 8 bits, as LiteRT and others hold them.

1. Channels are equalised (as weights are in arXiv 1906.04721, section 4.1): a ReLU lets positive factors through, so a
   channel is divided by a power of the largest value that it takes on the images, and the next layers' weights are
   multiplied by it. The float network answers as before, and all channels fill the one range that a tensor has.
2. A tensor's range ends a little below its largest value: what few values lose there, all others gain in steps. The
   factors put that end at 6, so that a ReLU6 in the ReLU's place makes it known to whatever calibrates.
3. Each filter is rounded to the 255 steps that it will get, with compensation, and its bias takes back what the mean
   output still lacks. Without this, equalised weights lose more than the activations gain.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.compression.activations import layer_statistics
from sqz_keras.compression.compensation import round_filters
from sqz_keras.models.squeezenet import build

Arrays = dict[str, np.ndarray]
LEVELS = 127
CLIP = 6.0
# Chosen with the authors' v1.0, in a simulation on 100 images calibrated on 100 others: the divergence that 8-bit
# activations cause was 0.0079 with whole equalisation and nothing clipped, 0.0066 with this power, 0.0052 with this end
# of the range too (0.0062 at 0.8).
_POWER = 0.8
_END = 0.9
_LEAST = 1e-3  # of a tensor's largest value: channels below it, dead ones among them, count as that large


def prepare(spec: ModelSpec, arrays: Mapping[str, np.ndarray], images: np.ndarray) -> Arrays:
    """The weights of a network that answers nearly alike, and still does in 8 bits.

    The convolutions that `clipped` names must be followed by a ReLU6.

    Args:
        spec: of the model. With bypasses only the squeeze layers' channels are equalised, as sums tie the others.
        arrays: its weights by name.
        images: float32 (N, S, S, C), as the network takes them: about a hundred unlabelled images.

    Returns:
        float32 arrays; each filter of a kernel is integers in -127..127 times its largest weight over 127.
    """
    statistics = layer_statistics(build(spec, dict(arrays)), images)
    taken, given = _factors(spec, {name: largest for name, (_, _, largest) in statistics.items()})
    result = {}
    for name, (covariance, mean, _) in statistics.items():
        kernel = arrays[f"{name}/kernel"].astype(np.float64)
        factors = np.tile(taken.get(name, np.ones(kernel.shape[2])), kernel.shape[0] * kernel.shape[1])
        divisors = given.get(name, np.ones(kernel.shape[3]))
        weights = kernel.reshape(len(factors), -1) * factors[:, None] / divisors
        rounded = round_filters(weights, covariance / np.outer(factors, factors), LEVELS)
        lacking = (mean / factors) @ (weights - rounded)
        result[f"{name}/kernel"] = rounded.reshape(kernel.shape).astype(np.float32)
        result[f"{name}/bias"] = (arrays[f"{name}/bias"] / divisors + lacking).astype(np.float32)
    return result


def clipped(spec: ModelSpec) -> list[str]:
    """The convolutions whose outputs end at `CLIP`: all whose channels are free to be scaled."""
    free = ("_squeeze1x1",) if spec.bypass else ("conv1", "_squeeze1x1", "_expand1x1", "_expand3x3")
    names = [name.removesuffix("/kernel") for name in spec.weight_shapes() if name.endswith("/kernel")]
    return [name for name in names if name.endswith(free)]


def _factors(spec: ModelSpec, largest: Mapping[str, np.ndarray]) -> tuple[Arrays, Arrays]:
    """By layer, what its input channels are multiplied by and what its output channels are divided by."""
    taken, given = {}, {}

    def equalise(producers: list[str], consumers: list[str]) -> None:
        values = np.concatenate([largest[name] for name in producers])
        top = values.max()
        factors = np.ones_like(values)
        if top > 0:
            factors = np.maximum(values / top, _LEAST) ** _POWER * (_END * top / CLIP)
        taken.update(dict.fromkeys(consumers, factors))
        ends = np.cumsum([len(largest[name]) for name in producers])
        given.update(zip(producers, np.split(factors, ends[:-1]), strict=True))

    outputs = ["conv1"]
    for fire in spec.metaparameters.fire_modules():
        squeeze, expands = f"{fire.name}_squeeze1x1", [f"{fire.name}_expand1x1", f"{fire.name}_expand3x3"]
        if spec.bypass is None:
            equalise(outputs, [squeeze])
        equalise([squeeze], expands)
        outputs = expands
    if spec.bypass is None:
        equalise(outputs, ["conv10"])
    return taken, given
