"""One update of the network, by Caffe's rule from gradients summed over the replicas, and the state it changes."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from sqz_keras.images.preprocessing import preprocess_input
from sqz_keras.models.squeezenet import named_arrays
from trainers.training.config import TrainConfig


class TrainState:
    """All that an update changes: weights, velocities, their moving averages, and the seeds of dropout.

    Args:
        model: The model, built inside the scope of `strategy`.
        config: The run's config.
        strategy: A tf.distribute strategy; the default one is a single device.
    """

    def __init__(self, model: keras.Model, config: TrainConfig, strategy: tf.distribute.Strategy):
        self.model = model
        self.weights = {_name(weight): weight.value for weight in model.trainable_variables}
        with strategy.scope():
            self.velocities = {name: _like(weight, zero=True) for name, weight in self.weights.items()}
            self.averages = {name: _like(weight) for name, weight in self.weights.items()} if config.ema_decay else {}
        # Dropout's seeds, which no file of Keras holds.
        self.seeds = {f"seed/{i}": seed.value for i, seed in enumerate(model.non_trainable_variables)}

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything by name, for a checkpoint."""
        return {name: _numpy(variable) for name, variable in self._variables().items()}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Restores what `arrays` returned.

        Raises:
            ValueError: The names or shapes are those of another model.
        """
        variables = self._variables()
        shapes = {name: array.shape for name, array in arrays.items()}
        if shapes != {name: tuple(variable.shape) for name, variable in variables.items()}:
            raise ValueError("The checkpoint's tensors are not this model's; it is of another run.")
        for name, variable in variables.items():
            variable.assign(arrays[name])

    def replace_weights(self, arrays: dict[str, np.ndarray]) -> None:
        """Replaces the weights of these names, and their moving averages."""
        for name, array in arrays.items():
            for variables in filter(None, (self.weights, self.averages)):
                variables[name].assign(array)

    def served_arrays(self) -> dict[str, np.ndarray]:
        """The weights to evaluate and to keep: the moving averages if there are any."""
        if not self.averages:
            return named_arrays(self.model)
        return {name: _numpy(average) for name, average in self.averages.items()}

    def _variables(self) -> dict[str, tf.Variable]:
        groups = {"weight": self.weights, "velocity": self.velocities, "average": self.averages}
        named = {f"{group}/{name}": value for group, values in groups.items() for name, value in values.items()}
        return named | self.seeds


def make_update(
    state: TrainState,
    config: TrainConfig,
    strategy: tf.distribute.Strategy,
    head_only: bool,
    keep_zeros: bool = False,
    class_weights: np.ndarray | None = None,
) -> Callable:
    """The compiled update: update(batch, learning_rate, mix) -> (loss, number of correct images, number of images).

    `batch` is (images (N, S, S, 3), RGB in 0..255 of any dtype, labels int64 (N,), weights float32 (N,)), or what
    `spread` makes of it; an image of weight 0 does not count. `mix`, in [0, 1], is the share of itself that each image
    keeps in mixup; 1 is no mixup. The loss is the mean cross-entropy over the global batch, without L2; the
    cross-entropy of each image is multiplied by the weight of its class.

    With v the velocity, w a weight or bias and g the gradient of the mean loss, clipped to `config.clip_norm` unless
    that is 0: g += weight_decay * w; v = momentum * v + rate * g; w -= v, or, with Nesterov,
    w -= momentum * v + rate * g.

    Args:
        state: What is updated.
        config: The run's config.
        strategy: The strategy over whose replicas the batch is spread.
        head_only: Whether only conv10 is trained.
        keep_zeros: Whether kernel weights that are 0 now stay 0.
        class_weights: Float32 (classes,), or None for 1 everywhere.
    """
    names = [name for name in state.weights if not head_only or name.startswith("conv10/")]
    replica_sums = _make_replica_sums(state, config, names, keep_zeros, class_weights)

    def local(per_replica):
        return strategy.experimental_local_results(per_replica)[0]

    def average(mean, weight):
        mean.assign(config.ema_decay * mean + (1 - config.ema_decay) * weight)

    @tf.function(autograph=False)
    def update(batch, rate, mix):
        *gradients, loss, correct, count = strategy.run(replica_sums, args=(*batch, mix))
        loss, correct, count = local(loss), local(correct), local(count)
        scale = _gradient_scale([local(gradient) for gradient in gradients], count, config.clip_norm)
        for name, gradient in zip(names, gradients, strict=True):
            strategy.extended.update(
                state.weights[name], _apply_gradient, args=(state.velocities[name], gradient, scale, rate, config)
            )
        for name, mean in state.averages.items():
            strategy.extended.update(mean, average, args=(state.weights[name],))
        return loss / tf.maximum(count, 1), correct, count

    return update


def _apply_gradient(weight, velocity, gradient, scale, rate, config: TrainConfig) -> None:
    """Caffe's rule for one weight; see `make_update`."""
    gradient = scale * gradient + config.weight_decay * weight
    velocity.assign(config.momentum * velocity + rate * gradient)
    weight.assign_sub(config.momentum * velocity + rate * gradient if config.solver == "modern" else velocity)


def _gradient_scale(gradients: list[tf.Tensor], count: tf.Tensor, clip_norm: float) -> tf.Tensor:
    """The factor that turns summed gradients into means, with their norm clipped to `clip_norm` unless that is 0."""
    scale = 1 / tf.maximum(count, 1)
    if clip_norm:
        norm = scale * tf.linalg.global_norm(gradients)
        scale *= tf.minimum(1.0, clip_norm / tf.maximum(norm, 1e-12))
    return scale


def _make_replica_sums(
    state: TrainState, config: TrainConfig, names: list[str], keep_zeros: bool, class_weights: np.ndarray | None
) -> Callable:
    """A function of one replica's part of a batch: (summed gradients..., summed loss, correct images, images).

    The function goes through its part in `config.accumulation_steps` slices and adds up their gradients, so that an
    update is the same however little memory there is. The results are sums over all replicas.
    """
    weights = [state.weights[name] for name in names]
    slice_sums = _make_slice_sums(state, config, names, keep_zeros, class_weights)

    def replica_sums(images, labels, counts, mix):
        slices = config.accumulation_steps
        if slices == 1:
            totals = slice_sums(images, labels, counts, mix)
        else:
            parts = [tf.reshape(part, [slices, -1, *part.shape[1:]]) for part in (images, labels, counts)]

            def add_slice(index, totals):
                sums = slice_sums(*(part[index] for part in parts), mix)
                return index + 1, [total + value for total, value in zip(totals, sums, strict=True)]

            zeros = [tf.zeros(weight.shape) for weight in weights] + [tf.zeros(())] * 3
            _, totals = tf.while_loop(
                lambda index, _: index < slices, add_slice, (tf.constant(0), zeros), parallel_iterations=1
            )
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, totals) if context.num_replicas_in_sync > 1 else totals

    return tf.function(replica_sums, autograph=False, jit_compile=True) if config.jit_compile else replica_sums


def _make_slice_sums(
    state: TrainState, config: TrainConfig, names: list[str], keep_zeros: bool, class_weights: np.ndarray | None
) -> Callable:
    """A function of some images: (gradients of the summed loss..., summed loss, correct images, images)."""
    weights = [state.weights[name] for name in names]
    masks = {
        name: tf.constant(_numpy(state.weights[name]) != 0, tf.float32)
        for name in names
        if keep_zeros and name.endswith("/kernel")
    }
    # The averages, before the softmax: a cross-entropy of logits neither clips nor overflows.
    to_logits = keras.Model(state.model.inputs, state.model.get_layer("pool10").output)

    def slice_sums(images, labels, counts, mix):
        images = preprocess_input(images, data_format="channels_last", mode=config.model.preprocessing.mode)
        with tf.GradientTape() as tape:
            mixed = mix * images + (1 - mix) * images[::-1] if config.mixup_alpha else images
            logits = tf.cast(to_logits(mixed, training=True), tf.float32)
            targets = _targets(labels, logits.shape[1], mix, config)
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
            if class_weights is not None:
                losses *= tf.gather(tf.constant(class_weights, tf.float32), labels)
            loss = tf.reduce_sum(counts * losses)
        gradients = [
            gradient * masks[name] if name in masks else gradient
            for name, gradient in zip(names, tape.gradient(loss, weights), strict=True)
        ]
        correct = tf.cast(tf.equal(tf.argmax(logits, 1), labels), tf.float32)
        return [*gradients, loss, tf.reduce_sum(counts * correct), tf.reduce_sum(counts)]

    return slice_sums


def _targets(labels, classes: int, mix, config: TrainConfig):
    """Soft labels (N, classes): one-hot, then mixup, then label smoothing."""
    targets = tf.one_hot(labels, classes)
    if config.mixup_alpha:
        targets = mix * targets + (1 - mix) * targets[::-1]
    return (1 - config.label_smoothing) * targets + config.label_smoothing / classes


def _name(weight) -> str:
    layer, part = weight.path.split("/")[-2:]
    return f"{layer}/{part}"


def _like(weight: tf.Variable, zero: bool = False) -> tf.Variable:
    value = _numpy(weight)
    return tf.Variable(np.zeros_like(value) if zero else value, trainable=False)


def _numpy(variable: tf.Variable) -> np.ndarray:
    return np.asarray(variable.read_value() if isinstance(variable, tf.Variable) else variable)
