"""Tuning the codes of a quantised net towards the answers of the uncompressed one, without labels.

Behind each weight is a float in units of its grid's step. The network sees the float rounded; the float's gradient is
that of the rounded weight, as if there were no rounding (the straight-through estimator of Y. Bengio, N. Léonard and A.
Courville, arXiv 1308.3432, section 4). So a weight stays on its grid, and its code changes once its float has crossed
the border to the next code.

The loss of a batch is the mean divergence KL(uncompressed || quantised) of answers softened by a temperature (G.
Hinton, O. Vinyals and J. Dean, arXiv 1503.02531, section 2), plus a price for the bits. At temperature 1 only images
with uncertain answers have a gradient to speak of, and the gradient of a batch is mostly noise. The bits of a code are
its length in an entropy code of its array, in which k and -k are equally long. For an entropy-coded uniform quantiser,
one more bit for every weight reduces the divergence at a rate of 2 ln(2) times its value (H. Gish and J. Pierce,
"Asymptotically Efficient Quantizing", 1968). The price of a bit is half of that; it is raised while the file is larger
than the target, and lowered while it is smaller.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections.abc import Callable, Mapping

import numpy as np

from sqz_keras.backend import check_is_tensorflow
from sqz_keras.extras import needs

with needs("tensorflow"):
    import keras
    import tensorflow as tf

from sqz_keras import codec
from sqz_keras.architecture.spec import ModelSpec, hash_arrays
from sqz_keras.codec.values import to_codes
from sqz_keras.compression.divergence import softened_divergence
from sqz_keras.compression.net_rounding import kept_weights
from sqz_keras.compression.stage_folder import StageFolder
from sqz_keras.models.squeezenet import assign, build
from sqz_keras.weights.arrays import check_shapes

Arrays = dict[str, np.ndarray]
_TEMPERATURE = 2.0
_BIAS_RATE = 0.1  # times the rate of the kernels, whose errors a bias corrects
_WARMUP = 20  # updates
_SECOND_MOMENT = 0.999
_FROM_CODE = 0.3  # steps: floats begin within this of their codes; nearer to the border a batch moves too many codes
_WANDERED = 0.045  # steps: about a quarter of the way from there to the border
_HIGHEST_RATE = 0.003  # at 0.01 the answers get worse
_LARGEST = 12  # the largest code with a length of its own
_FOR_PRICE = 8  # batches on which the initial divergence is measured
_PRICE_CHANGE = 300.0  # if the file is 1% too large, the price is exp(3) times as high
_UPDATES_BETWEEN_SIZES = 50
_LOWERINGS = 12  # halvings of an interval of one step


def tune(
    spec: ModelSpec,
    arrays: Mapping[str, np.ndarray],
    quantized: Mapping[str, np.ndarray],
    batches: Callable[[int], tf.data.Dataset],
    *,
    target_bytes: int,
    updates: int,
    learning_rate: float,
    profile: str = "max",
    source: str = "",
    workdir: str | os.PathLike | None = None,
    report: Callable[[int, int, float], None] = lambda update, updates, divergence: None,
) -> Arrays:
    """Tunes the codes of quantised weights to answer more like the uncompressed ones, in a file of a given size.

    Args:
        spec: The model.
        arrays: The uncompressed weights by name; pruned ones stay 0.
        quantized: The same weights, each array on a grid of its own (`Quantizer` with `trellis=False`). An array that
            is on no grid stays as it is.
        batches: Function from the number of updates done to the batches that follow: float32 images (B, S, S, C), as
            the network takes them, and a weight for each, float32 (B,). Thousands of images help, and random crops.
        target_bytes: The most bytes that `codec.encode(result, {}, profile=profile)` may have.
        updates: Number of updates. Thousands help.
        learning_rate: Adam's highest rate, in steps of the grid, such as `learning_rate_for(updates)`. The rate rises
            for 20 updates and then falls to 0 on a cosine.
        profile: Profile of the file.
        source: What the batches are made of, in any words or as a hash: a run with another source is not resumed.
        workdir: Folder of this stage alone. A run that was killed resumes from it, and a finished one is not repeated.
        report: Called after each update, as report(update, updates, divergence of the batch).

    Returns:
        Float32 arrays on the grids of `quantized`.

    Raises:
        ValueError: The arguments do not fit together, the batches ran out, or the answers are no longer finite.
    """
    check_is_tensorflow("Tuning")
    for name, value in (("arrays", arrays), ("quantized", quantized)):
        check_shapes(name, value, spec.weight_shapes())
    request = {
        "stage": "tune",
        "model_spec": dataclasses.replace(spec, weights_sha256=None).to_json(),
        "arrays": hash_arrays(arrays),
        "quantized": hash_arrays(quantized),
        "batches": str(batches(0).element_spec),
        "source": source,
        "target_bytes": target_bytes,
        "updates": updates,
        "learning_rate": learning_rate,
        "temperature": _TEMPERATURE,
        "profile": profile,
    }
    folder = StageFolder(workdir, request)

    def compute() -> Arrays:
        tuning = _Tuning(spec, arrays, quantized, updates, learning_rate)
        _run(tuning, batches, folder, target_bytes, updates, profile, report)
        return _fitted(tuning, target_bytes, profile)

    return folder.once(spec.weight_shapes(), compute)


def learning_rate_for(updates: int) -> float:
    """The learning rate at which noise alone changes hardly any code in a run of this many updates.

    A weight whose gradient is only noise makes a random walk, with steps of about the learning rate. On the cosine the
    root mean square of the rate is sqrt(3/8) of its highest value. With more updates the rate is lower, and weaker
    gradients stand out from their noise.
    """
    return float(f"{min(_WANDERED / math.sqrt(3 / 8 * max(updates, 1)), _HIGHEST_RATE):.2g}")


def mean_softened_divergence(
    teacher: keras.Model, student: keras.Model, images: tf.Tensor, weights: tf.Tensor, temperature: float | tf.Tensor
) -> tf.Tensor:
    """The weighted mean over images of `softened_divergence`, of the student's answers from the teacher's.

    Args:
        teacher: A network with softmax.
        student: Another network with the same classes.
        images: Their inputs, float32 (B, S, S, C).
        weights: The weight of each image in the mean, float32 (B,).
        temperature: Divides the logarithms of the probabilities.

    Returns:
        Float32, a scalar.
    """
    answers = (network(images, training=False) for network in (teacher, student))
    by_image = softened_divergence(*answers, temperature)
    return tf.reduce_sum(weights * by_image) / tf.maximum(tf.reduce_sum(weights), 1.0)


def _run(
    tuning: _Tuning,
    batches: Callable,
    folder: StageFolder,
    target_bytes: int,
    updates: int,
    profile: str,
    report: Callable,
) -> None:
    base_price = tuning.measure_divergence(batches(0)) * math.log(2) / tuning.count_kept()
    manager = folder.checkpoints(tuning.checkpoint())
    if manager is not None and manager.latest_checkpoint:
        manager.checkpoint.restore(manager.latest_checkpoint).assert_existing_objects_matched()
    done = update = tuning.updates_done()
    for update, (images, weights) in zip(range(done + 1, updates + 1), batches(done), strict=False):
        if (update - 1) % _UPDATES_BETWEEN_SIZES == 0:  # checkpoints are made only here, so resuming changes nothing
            if manager is not None and update - 1 > done:
                manager.save(checkpoint_number=update - 1)
            excess = _size(tuning.result(), profile) / target_bytes - 1
            price = base_price * math.exp(min(max(_PRICE_CHANGE * excess, -3.0), 3.0))
        divergence = float(tuning.update(images, weights, tf.constant(price, tf.float32)))
        if not math.isfinite(divergence):
            raise ValueError(f"The divergence is {divergence} at update {update}: give a smaller learning_rate.")
        report(update, updates, divergence)
    if update < updates:
        raise ValueError(f"The batches ended after {update} of {updates} updates; make them endless: .repeat().")


def _fitted(tuning: _Tuning, target_bytes: int, profile: str) -> Arrays:
    """The result; if its file is too large, the codes whose floats have hardly crossed a border are lowered."""
    result = tuning.result()
    if _size(result, profile) <= target_bytes:
        return result
    least, most = 0.0, 1.0
    for _ in range(_LOWERINGS):
        middle = (least + most) / 2
        fits = _size(tuning.result(middle), profile) <= target_bytes
        least, most = (least, middle) if fits else (middle, most)
    return tuning.result(most)


def _size(arrays: Arrays, profile: str) -> int:
    return len(codec.encode(arrays, {}, profile=profile))


class _Tuning:
    """The floats behind the codes, both networks, and the update.

    Args:
        spec: The model.
        arrays: The uncompressed weights by name.
        quantized: The quantised weights by name.
        updates: Number of updates in all.
        learning_rate: The highest learning rate.
    """

    def __init__(self, spec: ModelSpec, arrays: Mapping, quantized: Mapping, updates: int, learning_rate: float):
        self._fixed = dict(quantized)
        self._teacher, self._student = build(spec, dict(arrays)), build(spec, dict(quantized))
        steps = {name: coded.step for name, array in quantized.items() if (coded := to_codes(array)) is not None}
        self._steps = {name: step for name, step in steps.items() if step is not None}
        if not self._steps:
            raise ValueError("None of the quantised arrays is on a grid: quantise with Quantizer(trellis=False).")
        by_path = {variable.path: variable for variable in self._student.trainable_variables}
        self._weights = {name: by_path[name] for name in self._steps}
        self._kept, self._floats = {}, {}
        for name, step in self._steps.items():
            codes = np.rint(quantized[name] / step)
            kept = kept_weights(arrays[name]).reshape(codes.shape) if name.endswith("/kernel") else np.ones(codes.shape)
            near = np.clip(arrays[name] / step, codes - _FROM_CODE, codes + _FROM_CODE)
            self._kept[name] = tf.constant(kept, tf.float32)
            self._floats[name] = keras.Variable(np.where(kept, near, 0), dtype="float32", name=name.replace("/", "_"))
        self._optimizers = [
            (_adam(rate * learning_rate, updates), [name for name in self._steps if name.endswith(kind)])
            for kind, rate in (("/kernel", 1.0), ("/bias", _BIAS_RATE))
        ]
        for optimizer, names in self._optimizers:
            optimizer.build([self._floats[name] for name in names])

    def checkpoint(self) -> tf.train.Checkpoint:
        """What a resumed run needs."""
        variables = [*self._floats.values(), *itertools.chain(*(one.variables for one, _ in self._optimizers))]
        return tf.train.Checkpoint(variables=[variable.value for variable in variables])

    def updates_done(self) -> int:
        """Number of updates, counted from the very first one."""
        return int(self._optimizers[0][0].iterations)

    def count_kept(self) -> int:
        """Number of weights in the kernels that are not pruned."""
        return int(sum(float(tf.reduce_sum(kept)) for name, kept in self._kept.items() if name.endswith("/kernel")))

    def measure_divergence(self, batches: tf.data.Dataset) -> float:
        """The mean divergence over some batches, in nats."""
        assign(self._student, self.result())
        return float(np.mean([self._divergence(*batch) for batch in batches.take(_FOR_PRICE)]))

    def result(self, lowered: float = 0.0) -> Arrays:
        """The arrays on their grids, after the floats of kernels have moved `lowered` steps towards 0."""
        arrays = {}
        for name, array in self._fixed.items():
            if name in self._steps:
                units = self._floats[name].numpy()
                codes = np.rint(np.sign(units) * np.maximum(np.abs(units) - lowered * name.endswith("/kernel"), 0))
                array = self._steps[name] * codes + np.float32(0)
            arrays[name] = array
        return arrays

    @tf.function(reduce_retracing=True, autograph=False)
    def update(self, images: tf.Tensor, weights: tf.Tensor, price: tf.Tensor) -> tf.Tensor:
        """Trains on a batch, at a price in nats for each bit; returns the divergence."""
        for name, variable in self._weights.items():
            variable.assign(self._steps[name] * tf.round(self._floats[name].value))
        with tf.GradientTape() as tape:
            divergence = self._divergence(images, weights)
        gradients = dict(zip(self._weights, tape.gradient(divergence, list(self._weights.values())), strict=True))
        for optimizer, names in self._optimizers:
            optimizer.apply(
                [self._gradient(name, gradients[name], price) for name in names],
                [self._floats[name] for name in names],
            )
        return divergence

    def _gradient(self, name: str, of_weight: tf.Tensor, price: tf.Tensor) -> tf.Tensor:
        """The gradient of an array's floats, from that of its rounded weights."""
        gradient = self._steps[name] * of_weight
        if name.endswith("/kernel"):
            gradient += price * _bits_slope(self._floats[name].value, self._kept[name])
        return self._kept[name] * gradient

    @tf.function(reduce_retracing=True, autograph=False)
    def _divergence(self, images: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return mean_softened_divergence(self._teacher, self._student, images, weights, _TEMPERATURE)


def _adam(learning_rate: float, updates: int) -> keras.optimizers.Adam:
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, max(updates - _WARMUP, 1), warmup_target=learning_rate, warmup_steps=min(_WARMUP, updates)
    )
    return keras.optimizers.Adam(schedule, beta_2=_SECOND_MOMENT, epsilon=1e-15)


def _bits_slope(units: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
    """How many more bits a code has for each step that its float rises, estimated from the lengths next to its own."""
    codes = tf.cast(tf.minimum(tf.abs(tf.round(units)), _LARGEST), tf.int32)
    is_kept = tf.reshape(kept, [-1]) > 0
    counts = tf.math.bincount(tf.boolean_mask(tf.reshape(codes, [-1]), is_kept), minlength=_LARGEST + 1)
    share = (tf.cast(counts, tf.float32) + 1) / tf.constant([1.0] + _LARGEST * [2.0])  # of k and of -k
    lengths = -tf.math.log(share) / math.log(2)
    rise = tf.maximum(lengths[1:] - lengths[:-1], 0)
    slopes = tf.concat([rise[:1], (rise[1:] + rise[:-1]) / 2, rise[-1:]], axis=0)
    return tf.gather(slopes, codes) * tf.sign(units)
