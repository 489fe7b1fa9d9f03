"""Quantisation without labels: each array has a grid of its own, and later layers compensate for its errors.

1. Rounding a weight should cost the same in every array, which gives the least distortion for a given number of bits.
   What it costs is first estimated from the sensitivity of the answers to single weights. Then each layer is rounded by
   itself, and the steps follow from how far that moves the answers. They are a little coarser in early layers, whose
   errors later ones compensate for, and finer in late ones.
2. Layers are rounded in net order, on a trellis and with compensation (`trellis_rounding`). Each is first fitted to the
   outputs of the rounded layers before it; its bias corrects the remaining error of the mean output.
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
from sqz_keras.compression.grids import finest_step, grid_steps, on_grid
from sqz_keras.compression.layer_inputs import LayerInputs
from sqz_keras.compression.trellis_rounding import round_on_trellis
from sqz_keras.models.squeezenet import build
from sqz_keras.weights.arrays import check_shapes

Arrays = dict[str, np.ndarray]
RoundKernel = Callable[[str, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
_NEARLY_DENSE = 0.9  # a layer of at least this density has no pruning mask to keep
_FOR_SENSITIVITY = 40  # images; they only start the search for the steps
_NEAR_ENOUGH = 0.004  # below the target, as a share of it, at the first attempt; twice as much at each further one
_ATTEMPTS = 6
# Times the step of the first layer, and by as much less of the last one, evenly in between.
_EARLY_COARSER = 1.2


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
        report("measuring how the answers depend on each layer")
        some = images[:: -(-len(images) // _FOR_SENSITIVITY)]
        sensitivity = activations.sensitivities(before, some)
    if not any(sensitivity.values()):
        raise ValueError("The model answers alike whatever its weights: give other images, or a trained model.")
    images = np.concatenate([images, images[:, :, ::-1]])  # mirrored ones are as good
    kept = {name: _kept(array) for name, array in arrays.items()}

    def rounding(steps: Mapping[str, np.float32 | None]) -> tuple[RoundKernel, Callable[[str, np.ndarray], np.ndarray]]:
        def kernel(name, weights, moments, cross_moments):
            if steps[name] is None:
                return np.zeros_like(weights)
            step = steps[name] / 2  # integers of a state are 2 apart
            return step * round_on_trellis(weights, kept[name], moments, cross_moments, step).astype(np.float32)

        return kernel, lambda name, bias: on_grid(bias, steps[name])

    def steps_of(coarseness: float) -> dict[str, np.float32 | None]:
        steps = grid_steps(sensitivity, coarseness, _EARLY_COARSER)
        return {name: step and max(step, finest_step(arrays[name])) for name, step in steps.items()}

    @functools.cache  # attempts share most of their arguments
    def plain_size(coarseness: float) -> int:
        steps = steps_of(coarseness)
        return size({name: on_grid(array, steps[name]) for name, array in arrays.items()})

    steps = steps_of(_coarseness_for(target_bytes, plain_size))
    report("rounding each layer by itself")
    alone = _round_alone(arrays, before, spec, images, *rounding(steps))
    sensitivity = _with_divergences(sensitivity, activations.divergences(before, alone, images), steps, kept)
    plain_size.cache_clear()
    best, best_size, tried = None, 0, []
    aim = (1 - _NEAR_ENOUGH / 2) * target_bytes**2 / size(alone)
    for attempt in range(_ATTEMPTS):
        steps = steps_of(_coarseness_for(aim, plain_size))
        candidate = _round_net(spec, arrays, before, images, *rounding(steps), report)
        reached = size(candidate)
        report(f"attempt {attempt + 1}: {reached} bytes of {target_bytes}")
        if best_size < reached <= target_bytes:
            best, best_size = candidate, reached
        at_the_finest = best_size == reached == (tried[-1][0] if tried else None)
        if at_the_finest or best_size >= (1 - _NEAR_ENOUGH * 2**attempt) * target_bytes:
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


def _with_divergences(
    sensitivity: Mapping[str, float],
    divergences: Mapping[str, float],
    steps: Mapping[str, np.float32 | None],
    kept: Mapping[str, np.ndarray],
) -> dict[str, float]:
    """The sensitivities, those of kernels from how far a layer's rounding to these steps moves the answers."""
    measured = {}
    for layer, divergence in divergences.items():
        name = f"{layer}/kernel"
        measured[name] = divergence / max(kept[name].sum(), 1) / float(steps[name] or 1) ** 2
    # Biases keep their place among the kernels.
    both = [(sensitivity[name], value) for name, value in measured.items() if value > 0 and sensitivity[name] > 0]
    factor = np.exp(np.mean([np.log(value / before) for before, value in both])) if both else 1.0
    return {name: measured.get(name, float(factor * value)) for name, value in sensitivity.items()}


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

    kept = {name: _kept(array) for name, array in clustered.items()}

    def kernel(name, weights, moments, cross_moments):
        values = np.unique(clustered[name]).astype(np.float64)
        borders = (values[1:] + values[:-1]) / 2

        def nearest(free):
            return values[np.searchsorted(borders, free)]

        return round_to_nearest(weights, kept[name], moments, cross_moments, nearest)

    fixed = {
        name: array for name, array in clustered.items() if layers is not None and name.rsplit("/", 1)[0] not in layers
    }
    return _round_net(spec, arrays, build(spec, arrays), images, kernel, lambda name, bias: bias, report, fixed)


def _kept(kernel: np.ndarray) -> np.ndarray:
    """The weights that may differ from 0, shaped (inputs, filters)."""
    kept = kernel.reshape(-1, kernel.shape[-1]) != 0
    return kept | (kept.mean() >= _NEARLY_DENSE)


def _round_net(
    spec: ModelSpec,
    arrays: Arrays,
    before: keras.Model,
    images: np.ndarray,
    round_kernel: RoundKernel,
    round_bias: Callable[[str, np.ndarray], np.ndarray],
    report: Callable[[str], None],
    fixed: Mapping[str, np.ndarray] = types.MappingProxyType({}),
) -> Arrays:
    """Rounds layers in net order, each for the outputs of those before it; layers in `fixed` stay as they are."""
    after, result = build(spec, arrays), {}
    layers = activations.convolutions(after)
    inputs_before, inputs_after = (LayerInputs(model, spec.layers(), images) for model in (before, after))
    for number, layer in enumerate(layers, 1):
        report(f"rounding {layer.name}, {number} of {len(layers)}")
        names = f"{layer.name}/kernel", f"{layer.name}/bias"
        if names[0] in fixed:
            rounded = [fixed[name] for name in names]
        else:
            moments = activations.input_moments(inputs_before.of(layer.name), inputs_after.of(layer.name), layer)
            rounded = _round_layer(arrays, names, moments, round_kernel, round_bias)
        layer.set_weights(rounded)
        result |= zip(names, rounded, strict=True)
    return result


def _round_alone(
    arrays: Arrays,
    before: keras.Model,
    spec: ModelSpec,
    images: np.ndarray,
    round_kernel: RoundKernel,
    round_bias: Callable[[str, np.ndarray], np.ndarray],
) -> Arrays:
    """Rounds each layer as if the others were not."""
    result, inputs = {}, LayerInputs(before, spec.layers(), images)
    for layer in activations.convolutions(before):
        names = f"{layer.name}/kernel", f"{layer.name}/bias"
        batches = inputs.of(layer.name)
        moments = activations.input_moments(batches, batches, layer)
        result |= zip(names, _round_layer(arrays, names, moments, round_kernel, round_bias), strict=True)
    return result


def _round_layer(
    arrays: Arrays,
    names: tuple[str, str],
    moments: tuple[np.ndarray, ...],
    round_kernel: RoundKernel,
    round_bias: Callable[[str, np.ndarray], np.ndarray],
) -> list[np.ndarray]:
    """A layer's rounded kernel and bias, from what `input_moments` returns."""
    (kernel, bias), (products, cross_products, mean_before, mean_after) = names, moments
    weights = arrays[kernel].reshape(-1, arrays[kernel].shape[-1])
    rounded = round_kernel(kernel, weights, products, cross_products).astype(np.float32)
    lacking = (mean_before @ weights - mean_after @ rounded).astype(np.float32)
    return [rounded.reshape(arrays[kernel].shape), round_bias(bias, arrays[bias] + lacking)]
