"""Quantisation without labels: each array has a grid of its own, and later layers compensate for its errors.

1. Rounding a weight should cost the same in every array, which gives the least distortion for a given number of bits.
   The cost is first estimated from the sensitivity of the answers to single weights. Then each layer is rounded by
   itself, and the steps follow from how far that moves the answers. Steps are a little coarser in early layers, whose
   errors later layers compensate for, and finer in late ones.
2. Layers are rounded in net order, on a trellis and with compensation (`trellis_rounding`). Each is first fitted to the
   outputs of the rounded layers before it; its bias corrects the remaining error of the mean output.
3. The coarseness is chosen to give the file the requested size; the last layer's step makes up for what is left.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import numpy as np

from sqz_keras import codec
from sqz_keras.extras import needs

with needs("tensorflow"):
    import keras

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.codec.entropy import entropy_bits, symbol_counts
from sqz_keras.compression import sensitivities
from sqz_keras.compression.activations import Moments, convolutions
from sqz_keras.compression.compensation import round_to_nearest
from sqz_keras.compression.divergence import mean_divergence
from sqz_keras.compression.forecast import Forecast, forecast
from sqz_keras.compression.grids import finest_step, grid_steps, on_grid
from sqz_keras.compression.layer_inputs import BATCH
from sqz_keras.compression.net_rounding import Rounding, check_inputs, kept_weights, round_alone, round_layer, round_net
from sqz_keras.compression.size_search import TooFewBytesError, finest_coarseness, next_aim
from sqz_keras.compression.trellis_rounding import round_on_trellis
from sqz_keras.models.squeezenet import build

Arrays = dict[str, np.ndarray]
Steps = dict[str, np.float32 | None]
_FOR_SENSITIVITY = 20  # images; they only start the search for the steps
_FOR_LAYERS_ALONE = 50  # images at most, when layers are rounded by themselves, and as many others to estimate with
_FOR_FORECAST = 500  # images at most, whose answers show how sure the model is
_FEW = 200  # images; if there are no more, mirrored copies help, though more images would help more
_NEAR_ENOUGH = 0.003  # below the target, as a share of it, at the first attempt; twice as much at each further one
_LAST_STEP_CHANGE = 0.2  # octaves by which the last layer's step may change to fill the file
_ATTEMPTS = 6
_EARLY_COARSER = 1.2  # see `grid_steps`
_BITS_ALONE = 3  # per kept weight, when layers are rounded by themselves


class _Alone(NamedTuple):
    """What is known after each layer was rounded by itself.

    Args:
        sensitivity: Sensitivity by array, in 1 / weight**2.
        on_others: Divergence of all rounded layers together, on images to which they were not fitted, divided by the
            sum over the layers on the images to which they were; at least 1. It is 1.0 to 1.5 for v1.0, and up to 3
            for dense networks.
        beside: Bytes of a file of plainly rounded arrays beyond their entropy; may be negative.
        size_ratio: Size with compensation (on a trellis, if there is one), divided by the size of plain rounding with
            the same steps.
    """

    sensitivity: dict[str, float]
    on_others: float
    beside: float
    size_ratio: float


def quantize(
    spec: ModelSpec,
    arrays: Arrays,
    images: np.ndarray,
    *,
    target_bytes: int,
    profile: str = "max",
    report: Callable[[str], None] = lambda message: None,
) -> Arrays:
    """Rounds weights so that the answers change as little as a file of the given size allows: `Quantizer.to_size`.

    Args:
        spec: The model.
        arrays: The model's weights by name; pruned weights stay 0.
        images: Float32 (N, S, S, C), as the network takes them, unlabelled: a hundred, or better several hundred.
        target_bytes: The most bytes that the file may have.
        profile: Profile of the file.
        report: Called with a line of progress.

    Returns:
        The quantised weights by name.

    Raises:
        ValueError: The arguments do not fit together, or the answers do not depend on the weights.
        TooFewBytesError: No file of this model can be this small.
    """
    return Quantizer(spec, arrays, images, profile=profile, report=report).to_size(target_bytes)


class Quantizer:
    """Quantises a model to any number of sizes.

    Args:
        spec: The model.
        arrays: The model's weights by name; pruned weights stay 0.
        images: Float32 (N, S, S, C), as the network takes them: a hundred unlabelled images, or better several hundred.
            Rounding takes about 6 MB of memory per image, and twice as much if there are at most 200.
        profile: Profile of the files.
        trellis: Whether kernels are rounded on a trellis; else on plain grids, which can be tuned (`code_tuning`).
        report: Called with a line of progress.

    Raises:
        ValueError: The arguments do not fit together, or the answers do not depend on the weights.
    """

    def __init__(
        self,
        spec: ModelSpec,
        arrays: Arrays,
        images: np.ndarray,
        *,
        profile: str = "max",
        trellis: bool = True,
        report: Callable[[str], None] = lambda message: None,
    ):
        check_inputs(spec, arrays, images)
        self._spec, self._arrays, self._profile, self._report = spec, arrays, profile, report
        self._round_kernel = _on_trellis if trellis else _on_plain_grid
        self._images = images
        self._kept = {name: kept_weights(array) for name, array in arrays.items()}
        self._before = build(spec, arrays)

    def to_size(self, target_bytes: int) -> Arrays:
        """Weights that answer as much like the given ones as a file of `target_bytes` allows.

        Args:
            target_bytes: The most bytes that `codec.encode(result, {}, profile=profile)` may have.

        Returns:
            Float32 arrays, each a step times integers; the given ones if they fit into `target_bytes` as they are.

        Raises:
            TooFewBytesError: Nothing useful fits into `target_bytes`.
        """
        if self._size(self._arrays) <= target_bytes:
            return {name: array.copy() for name, array in self._arrays.items()}
        best, best_size, tried = None, 0, []
        images = self._images
        if len(images) <= _FEW:
            images = np.concatenate([images, images[:, :, ::-1]])
        aim = (1 - _NEAR_ENOUGH / 2) * target_bytes
        for attempt in range(_ATTEMPTS):
            steps = self._steps(self._alone.sensitivity, self._coarseness_for(aim, closely=True))
            candidate, moments = round_net(
                self._spec, self._arrays, self._before, images, self._rounding(steps), self._report
            )
            candidate = self._filled(candidate, moments, steps, target_bytes)
            size = self._size(candidate)
            self._report(f"attempt {attempt + 1}: {size} bytes of {target_bytes}")
            if best_size < size <= target_bytes:
                best, best_size = candidate, size
            at_the_finest = best_size == size == (tried[-1][0] if tried else None)
            if at_the_finest or best_size >= (1 - _NEAR_ENOUGH * 2**attempt) * target_bytes:
                break
            tried.append((size, aim))
            # The size of a small file follows the aim less smoothly, so the margin grows.
            aim = next_aim(tried, (1 - _NEAR_ENOUGH / 2 * 2**attempt) * target_bytes)
        if best is None:
            raise TooFewBytesError(f"No quantised model of at most {target_bytes} bytes was found; ask for more bytes.")
        return best

    def _filled(self, candidate: Arrays, moments: Moments, steps: Steps, target_bytes: int) -> Arrays:
        """The candidate, with its last layer rounded again if a slightly different step fills the file better.

        Args:
            candidate: Rounded arrays.
            moments: Moments of the last layer.
            steps: The steps with which the arrays were rounded.
            target_bytes: As in `to_size`.
        """
        layer = convolutions(self._before)[-1].name
        kernel, octaves, best, best_size = f"{layer}/kernel", 0.0, candidate, self._size(candidate)
        size = best_size
        for _ in range(2):
            if (1 - _NEAR_ENOUGH) * target_bytes <= best_size <= target_bytes or steps[kernel] is None:
                break
            octaves += (size - (1 - _NEAR_ENOUGH / 2) * target_bytes) * 8 / max(self._kept[kernel].sum(), 1)
            if abs(octaves) > _LAST_STEP_CHANGE:
                break
            step = np.float32(steps[kernel] * 2**octaves)
            layer_again = round_layer(self._arrays, layer, moments, self._rounding({**steps, kernel: step}))
            size = self._size(candidate | layer_again)
            if size <= target_bytes and (size > best_size or best_size > target_bytes):
                best, best_size = candidate | layer_again, size
        return best

    def estimate_size(self, agreement: float) -> int:
        """Estimated bytes of a file that gives the model's answers for this share of images like the given ones.

        The estimate uses what is known before the net is rounded. For six networks, the actual agreement came within 5
        points of the requested one, from 0.8 to 0.99. The estimate is at least `least_estimate`; at that size, the
        actual agreement was anywhere from 0.65 to 0.99.
        """
        coarseness = self._forecast.coarseness(agreement)
        entropy = _entropy_bytes(self._plain(self._alone.sensitivity, coarseness))
        return max(self.least_estimate, round(self._alone.size_ratio * (entropy + self._alone.beside)))

    @property
    def least_estimate(self) -> int:
        """The smallest size that is estimated, in bytes: a bit per kept weight; with less, most weights become 0."""
        return self._kept_weights // 8

    def estimate_agreement(self, target_bytes: int) -> float:
        """The estimated share of images for which a file of this size gives the model's answers."""
        return self._forecast.agreement(self._coarseness_for(target_bytes))

    @functools.cached_property
    def _forecast(self) -> Forecast:
        divergence_alone = self._alone.on_others * self._kept_weights  # each adds sensitivity * step**2 = coarseness**2
        return forecast(divergence_alone, _answers(self._before, _some(self._images, _FOR_FORECAST)))

    @functools.cached_property
    def _kept_weights(self) -> int:
        return sum(int(kept.sum()) for name, kept in self._kept.items() if name.endswith("/kernel"))

    @functools.cached_property
    def _alone(self) -> _Alone:
        self._report("measuring how the answers depend on each layer")
        sensitivity = sensitivities.sensitivities(self._before, _some(self._images, _FOR_SENSITIVITY))
        if not any(sensitivity.values()):
            raise ValueError(
                "The model gives the same answers whatever its weights: give other images, or a trained model."
            )
        kernels = [name for name in self._arrays if name.endswith("/kernel")]
        target = _entropy_bytes({name: self._kept[name] for name in kernels}) + _BITS_ALONE / 8 * self._kept_weights
        coarseness = finest_coarseness(lambda tried: _entropy_bytes(self._plain(sensitivity, tried, kernels)), target)
        steps = self._steps(sensitivity, coarseness)
        images, others = _two_samples(self._images, _FOR_LAYERS_ALONE)
        rounded = round_alone(self._spec, self._arrays, self._before, images, self._rounding(steps), self._report)
        divergences = sensitivities.divergences(self._before, rounded, images)
        others = np.concatenate([others, others[:, :, ::-1]])
        on_others = mean_divergence(_answers(self._before, others), _answers(build(self._spec, rounded), others))
        plain = self._plain(sensitivity, coarseness)
        plain_size = self._size(plain)
        return _Alone(
            sensitivities.with_divergences(sensitivity, divergences, steps, self._kept),
            max(1.0, on_others / (sum(divergences.values()) or np.inf)),
            plain_size - _entropy_bytes(plain),
            self._size(rounded) / plain_size,
        )

    def _coarseness_for(self, target_bytes: float, closely: bool = False) -> float:
        """The coarseness for which a file is estimated to have the target size; `closely` takes half a second more."""
        plain_bytes = target_bytes / self._alone.size_ratio
        plain = functools.partial(self._plain, self._alone.sensitivity)
        with_entropy = functools.partial(finest_coarseness, lambda coarseness: _entropy_bytes(plain(coarseness)))
        try:
            coarseness = with_entropy(plain_bytes - self._alone.beside)
            if closely:  # by the bytes that a file of about this size has beyond the entropy
                arrays = plain(coarseness)
                coarseness = with_entropy(plain_bytes - (self._size(arrays) - _entropy_bytes(arrays)))
        except TooFewBytesError:
            raise TooFewBytesError(
                f"No useful model fits into so few bytes, {target_bytes:.0f} without the file's header; ask for more."
            ) from None
        return coarseness

    def _plain(
        self, sensitivity: Mapping[str, float], coarseness: float, names: Collection[str] | None = None
    ) -> Arrays:
        """The named arrays, or all arrays, rounded to grids of this coarseness without compensation."""
        steps = self._steps(sensitivity, coarseness)
        return {name: on_grid(self._arrays[name], steps[name]) for name in names or self._arrays}

    def _size(self, arrays: Arrays) -> int:
        return len(codec.encode(arrays, {}, profile=self._profile))

    def _steps(self, sensitivity: Mapping[str, float], coarseness: float) -> Steps:
        steps = grid_steps(sensitivity, coarseness, _EARLY_COARSER)
        return {name: step and max(step, finest_step(self._arrays[name])) for name, step in steps.items()}

    def _rounding(self, steps: Steps) -> Rounding:
        def kernel(name, weights, moments):
            if steps[name] is None:
                return np.zeros_like(weights)
            return self._round_kernel(weights, self._kept[name], moments, steps[name])

        return Rounding(kernel, lambda name, bias: on_grid(bias, steps[name]))


def _on_trellis(weights: np.ndarray, kept: np.ndarray, moments: Moments, step: np.float32) -> np.ndarray:
    half = step / 2  # the integers that a state allows are 2 apart
    return half * round_on_trellis(weights, kept, moments.inputs, moments.targets, half).astype(np.float32)


def _on_plain_grid(weights: np.ndarray, kept: np.ndarray, moments: Moments, step: np.float32) -> np.ndarray:
    def nearest(free: np.ndarray) -> np.ndarray:
        return step * np.rint(free / step) + 0  # without -0.0

    return round_to_nearest(weights, kept, moments.inputs, moments.targets, nearest)


def _answers(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return model.predict(images, batch_size=BATCH, verbose=0)


def _entropy_bytes(arrays: Arrays) -> float:
    return sum(entropy_bits(symbol_counts(array)) for array in arrays.values()) / 8


def _some(images: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the images, spread evenly over all of them."""
    return images[:: -(-len(images) // count)]


def _two_samples(images: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `count` of the images, and as many others, both spread evenly over all; a single image is in both."""
    stride = max(2, -(-len(images) // count))
    return images[::stride], images[stride // 2 :: stride] if len(images) > 1 else images
