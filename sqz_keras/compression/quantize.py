"""Quantisation without labels: each array has a grid of its own, and later layers compensate for its errors.

1. One number decides all: an array's step is `coarseness / sqrt(sensitivity)`, so that rounding a weight costs the same
   in every array, which gives the least distortion for a given number of bits. Steps are coarser than that in early
   layers, whose errors later ones compensate for, and finer in late ones.
2. Layers are rounded in net order. Each is first fitted to the outputs of the rounded layers before it, then rounded
   with compensation (`compensation.round_to_nearest`); its bias corrects the remaining error of the mean output.
3. The coarseness is the one that gives the file its requested size.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Collection, Mapping

import keras
import numpy as np

from sqz_keras import codec
from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.compression import activations
from sqz_keras.compression.compensation import round_to_nearest
from sqz_keras.compression.layer_inputs import LayerInputs
from sqz_keras.models.squeezenet import build
from sqz_keras.weights.arrays import check_shapes

Arrays = dict[str, np.ndarray]
# Times the step of the first layer, and by as much less of the last one, evenly in between. Without it the authors'
# v1.0 diverges 1.25 times as much in as many bytes; 1.7 was no better.
_EARLY_COARSER = 1.4
_NEARLY_DENSE = 0.9  # a layer of at least this density has no pruning mask to keep
_NEAR_ENOUGH = 0.004  # below the target, as a share of it, at the first attempt; twice as much at each further one
_ATTEMPTS = 6


class TooFewBytesError(ValueError):
    """Nothing useful fits into the requested number of bytes."""


def quantize(
    spec: ModelSpec,
    arrays: Arrays,
    images: np.ndarray,
    *,
    target_bytes: int,
    profile: str = "max",
    sensitivity: Mapping[str, float] | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> Arrays:
    """Weights that answer as much like the given ones as a file of `target_bytes` allows.

    Args:
        spec: The model.
        arrays: The model's weights by name; pruned weights stay 0.
        images: Float32 (N, S, S, C), as the network takes them: about a hundred unlabelled images.
        target_bytes: The most bytes that `codec.encode(result, {}, profile=profile)` may have.
        profile: Profile of the file.
        sensitivity: Result of `activations.sensitivities`, to share it between several sizes; None computes it.
        report: Called with a line of progress.

    Returns:
        Float32 arrays, each a step times integers; `arrays` themselves if they fit into `target_bytes` as they are.

    Raises:
        ValueError: The arguments do not fit together.
        TooFewBytesError: Nothing useful fits into `target_bytes`.
    """
    _check(spec, arrays, images)

    def size(candidate: Arrays) -> int:
        return len(codec.encode(candidate, {}, profile=profile))

    if size(arrays) <= target_bytes:
        return {name: array.copy() for name, array in arrays.items()}
    before = build(spec, arrays)
    if sensitivity is None:
        sensitivity = activations.sensitivities(
            before, images, lambda done: report(f"sensitivities: {done} of {len(images)} images")
        )
    if not any(sensitivity.values()):
        raise ValueError("The model answers alike whatever its weights: give other images, or a trained model.")

    @functools.cache  # attempts share most of their arguments
    def plain_size(coarseness: float) -> int:
        return size(_rounded(arrays, grid_steps(sensitivity, coarseness)))

    kept = {name: _kept(array) for name, array in arrays.items()}
    best, best_size, aim, tried = None, 0, target_bytes, []
    for attempt in range(_ATTEMPTS):
        coarseness = _coarseness_for(aim, plain_size)
        nearest = {
            name: functools.partial(on_grid, step=step) for name, step in grid_steps(sensitivity, coarseness).items()
        }
        candidate = _round_net(spec, arrays, before, images, kept, nearest, report)
        reached = size(candidate)
        report(f"attempt {attempt + 1}: {reached} bytes of {target_bytes}")
        if best_size < reached <= target_bytes:
            best, best_size = candidate, reached
        if best_size >= (1 - _NEAR_ENOUGH * 2**attempt) * target_bytes:
            break
        tried.append((reached, aim))
        # A small file follows the aim less smoothly: so the margin grows.
        aim = _next_aim(tried, (1 - _NEAR_ENOUGH / 2 * 2**attempt) * target_bytes)
    if best is None:
        raise TooFewBytesError(f"No quantised model of at most {target_bytes} bytes was found; ask for more bytes.")
    return best


def _check(spec: ModelSpec, arrays: Arrays, images: np.ndarray) -> None:
    check_shapes("arrays", arrays, spec.weight_shapes())
    shape = (spec.input_size, spec.input_size, spec.channels)
    if images.ndim != 4 or images.shape[1:] != shape or not len(images) or images.dtype != np.float32:
        raise ValueError(
            f"images must be float32 (N, {', '.join(map(str, shape))}), got {images.dtype} {images.shape}."
        )
    if keras.config.image_data_format() != "channels_last":
        raise ValueError("Quantisation needs Keras's image data format to be channels_last.")


def grid_steps(sensitivity: Mapping[str, float], coarseness: float) -> dict[str, np.float32 | None]:
    """The step of each array's grid, see above; None if the array's sensitivity is 0, because no image reaches it."""
    steps = {}
    for (name, value), place in zip(sensitivity.items(), np.linspace(1, -1, len(sensitivity)), strict=True):
        steps[name] = np.float32(coarseness * _EARLY_COARSER**place / np.sqrt(value)) if value > 0 else None
    return steps


def _coarseness_for(target_bytes: float, plain_size: Callable[[float], int]) -> float:
    """By bisection, the coarseness with which plain rounding, which needs nearly as many bytes, has the target size."""
    finest, coarsest = (np.log2(bound) for bound in (1e-6, 1.0))
    if plain_size(float(2.0**coarsest)) > target_bytes:
        raise TooFewBytesError(f"No useful model fits into {target_bytes:.0f} bytes; ask for more.")
    while coarsest - finest > 0.005:
        middle = (finest + coarsest) / 2
        finest, coarsest = (finest, middle) if plain_size(float(2.0**middle)) <= target_bytes else (middle, coarsest)
    return float(2.0**coarsest)


def _next_aim(tried: list[tuple[int, float]], target: float) -> float:
    """The aim for `target` bytes: between the (bytes, aim) nearest on both sides, else in proportion."""
    below = max((point for point in tried if point[0] <= target), default=None)
    above = min((point for point in tried if point[0] > target), default=None)
    if below and above:
        return below[1] + (above[1] - below[1]) * (target - below[0]) / (above[0] - below[0])
    reached, aim = below or above
    return aim * target / reached


def _rounded(arrays: Arrays, steps: dict[str, np.float32 | None]) -> Arrays:
    return {name: on_grid(array, steps[name]) for name, array in arrays.items()}


def on_grid(array: np.ndarray, step: np.float32 | None) -> np.ndarray:
    """The multiples of `step` nearest to the values, without -0.0; all 0 if the step is None."""
    return np.zeros_like(array) if step is None else step * np.rint(array / step).astype(np.float32) + np.float32(0)


def choose_codes(
    spec: ModelSpec,
    arrays: Arrays,
    clustered: Arrays,
    images: np.ndarray,
    report: Callable[[str], None] = lambda message: None,
    layers: Collection[str] | None = None,
) -> Arrays:
    """Chooses the codes of clustered weights again, with compensation, so that the net answers most like another.

    Args:
        spec: The model of both.
        arrays: The weights of the net to be like.
        clustered: Kernels with few values, the only ones in the result; zeros stay 0 unless they are few.
        images: As `quantize` takes them.
        report: Called with a line of progress.
        layers: The layers whose codes are chosen; the others stay as they are in `clustered`. None is all layers.

    Returns:
        Float32 arrays; the biases of these layers correct the remaining errors of the mean outputs.

    Raises:
        ValueError: The arguments do not fit together.
    """
    _check(spec, arrays, images)
    check_shapes("clustered", clustered, spec.weight_shapes())

    def rounding(name: str) -> Callable[[np.ndarray], np.ndarray]:
        if name.endswith("/bias"):
            return lambda bias: bias
        values = np.unique(clustered[name]).astype(np.float64)
        borders = (values[1:] + values[:-1]) / 2
        return lambda free: values[np.searchsorted(borders, free)]

    kept = {name: _kept(array) for name, array in clustered.items()}
    nearest = {name: rounding(name) for name in arrays}
    fixed = {
        name: array for name, array in clustered.items() if layers is not None and name.rsplit("/", 1)[0] not in layers
    }
    return _round_net(spec, arrays, build(spec, arrays), images, kept, nearest, report, fixed)


def _kept(kernel: np.ndarray) -> np.ndarray:
    """The weights that may differ from 0, shaped (inputs, filters)."""
    kept = kernel.reshape(-1, kernel.shape[-1]) != 0
    return kept | (kept.mean() >= _NEARLY_DENSE)


def _round_net(
    spec: ModelSpec,
    arrays: Arrays,
    before: keras.Model,
    images: np.ndarray,
    kept: Mapping[str, np.ndarray],
    nearest: Mapping[str, Callable[[np.ndarray], np.ndarray]],
    report: Callable[[str], None],
    fixed: Mapping[str, np.ndarray] = types.MappingProxyType({}),
) -> Arrays:
    """Rounds layers in net order, each for the outputs of those before it; layers in `fixed` stay as they are."""
    after, result = build(spec, arrays), {}
    layers = activations.convolutions(after)
    inputs_before, inputs_after = (LayerInputs(model, spec.layers(), images) for model in (before, after))
    for number, layer in enumerate(layers, 1):
        report(f"rounding {layer.name}, {number} of {len(layers)}")
        kernel, bias = f"{layer.name}/kernel", f"{layer.name}/bias"
        if kernel in fixed:
            result[kernel], result[bias] = fixed[kernel], fixed[bias]
            layer.set_weights([result[kernel], result[bias]])
            continue
        moments, cross_moments, mean_before, mean_after = activations.input_moments(
            inputs_before.of(layer.name), inputs_after.of(layer.name), layer
        )
        weights = arrays[kernel].reshape(-1, arrays[kernel].shape[-1])
        rounded = round_to_nearest(weights, kept[kernel], moments, cross_moments, nearest[kernel]).astype(np.float32)
        lacking = (mean_before @ weights - mean_after @ rounded).astype(np.float32)
        result[kernel] = rounded.reshape(arrays[kernel].shape)
        result[bias] = nearest[bias](arrays[bias] + lacking)
        layer.set_weights([result[kernel], result[bias]])
    return result
