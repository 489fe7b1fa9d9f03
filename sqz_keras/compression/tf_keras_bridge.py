"""The bridge between Keras 3, whose models this project builds, and tf_keras, the only Keras that tfmot supports.

This is the only file that names tf_keras. A model crosses in either direction layer by layer, from a whitelist of
layers, with its weights by layer name. Nothing is serialised and the process's state is not changed. The first call
imports tf_keras.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

from sqz_keras.extras import needs

with needs("compress"):
    import keras

from sqz_keras.compression.divergence import softened_divergence

# The layers of a SqueezeNet, and the parts of their configs that decide what they compute; Keras 3 and tf_keras use the
# same names.
_CONFIGS = {
    "Conv2D": (
        "filters",
        "kernel_size",
        "strides",
        "padding",
        "data_format",
        "dilation_rate",
        "groups",
        "activation",
        "use_bias",
    ),
    "ZeroPadding2D": ("padding", "data_format"),
    "MaxPooling2D": ("pool_size", "strides", "padding", "data_format"),
    "GlobalAveragePooling2D": ("data_format", "keepdims"),
    "GlobalMaxPooling2D": ("data_format", "keepdims"),
    "Concatenate": ("axis",),
    "Add": (),
    "Dropout": ("rate",),
    "Activation": ("activation",),
}
_STEPS_BETWEEN_REPORTS = 10
_TEMPERATURE = 4.0


def to_tf_keras(model: keras.Model, wrap: Callable | None = None):
    """The tf_keras twin of a Keras 3 model: the same layers, names and weights, in float32.

    Args:
        model: A functional model of the layers that SqueezeNets are made of, each applied once.
        wrap: Function that takes each convolution, built and with its weights, and returns it or a wrapper for it.

    Returns:
        A `tf_keras.Model`.

    Raises:
        ValueError: The model is not a Keras 3 model, or has a layer that the bridge does not know.
    """
    import tf_keras

    if not isinstance(model, keras.Model):
        raise ValueError(f"to_tf_keras takes a Keras 3 model, got a {_origin(model)}.")
    return _rebuild(model, tf_keras, wrap)


def to_keras(model) -> keras.Model:
    """The Keras 3 twin of a tf_keras model without wrappers; the opposite of `to_tf_keras`.

    Args:
        model: A functional `tf_keras.Model`.

    Returns:
        A functional `keras.Model` with the same layers, names and weights.

    Raises:
        ValueError: The model is not a tf_keras model, or has a layer that the bridge does not know.
    """
    import tf_keras

    if not isinstance(model, tf_keras.Model):
        raise ValueError(f"to_keras takes a tf_keras model, got a {_origin(model)}.")
    return _rebuild(model, keras, None)


def train(
    model,
    batches,
    *,
    steps: int,
    learning_rate: float,
    callbacks: Sequence = (),
    checkpoints=None,
    checkpoint_every_steps: int = 100,
    report: Callable[[int, int, float], None] | None = None,
) -> None:
    """Trains a tf_keras model by `fit`, up to `steps` updates counted from the very first one.

    It uses Adam, with a rate that falls linearly to 0: the size of Adam's steps does not depend on the scale of the
    gradients, which differs between losses, layers and clusters of weights.

    Args:
        model: A tf_keras model that ends in a softmax, compiled or not.
        batches: A tf.data.Dataset of (images, targets) or (images, targets, sample weights). Targets are class indices
            (integers), with the cross-entropy as the loss, or another net's probabilities (floats), with
            `softened_divergence`.
        steps: Number of updates in all. Updates up to the last checkpoint are not repeated, and their batches are
            skipped.
        learning_rate: Learning rate of the first update.
        callbacks: Callbacks of tf_keras, called before the checkpoint is written.
        checkpoints: Function from the checkpoint of (model=, optimizer=) to a tf.train.CheckpointManager, or None to
            keep none.
        checkpoint_every_steps: Updates between two checkpoints.
        report: Called as report(step, steps, mean loss since the last call).

    Raises:
        ValueError: The loss is no longer finite, or the batches ran out.
    """
    import tensorflow as tf
    import tf_keras

    schedule = tf_keras.optimizers.schedules.PolynomialDecay(learning_rate, steps, end_learning_rate=0.0)
    optimizer = tf_keras.optimizers.Adam(schedule)
    hard = batches.element_spec[1].dtype.is_integer
    softened = functools.partial(softened_divergence, temperature=_TEMPERATURE)
    model.compile(optimizer, tf_keras.losses.SparseCategoricalCrossentropy() if hard else softened)
    optimizer.build(model.trainable_variables)
    manager = None
    if checkpoints is not None:
        manager = checkpoints(tf.train.Checkpoint(model=model, optimizer=optimizer))
        if manager.latest_checkpoint:
            manager.checkpoint.restore(manager.latest_checkpoint).assert_existing_objects_matched()
    done = int(optimizer.iterations)
    watch = _make_watch(done, steps, manager, checkpoint_every_steps, report)
    if done < steps:
        model.fit(batches.skip(done), steps_per_epoch=steps - done, callbacks=[*callbacks, watch], verbose=0)
    if watch.step != steps:
        raise ValueError(f"The batches ended after {watch.step} of {steps} steps; make them endless: .repeat().")


def _make_watch(done: int, steps: int, manager, checkpoint_every_steps: int, report: Callable | None):
    """The callback that counts the steps, reports, checkpoints, and ends a run that diverges."""
    import tf_keras

    class Watch(tf_keras.callbacks.Callback):
        step = done  # the optimizer also counts the step for which there was no batch

        def on_train_batch_end(self, batch, logs=None):
            self.step += 1
            if self.step % _STEPS_BETWEEN_REPORTS == 0 or self.step == steps:
                loss = logs["loss"]
                if not math.isfinite(loss):
                    raise ValueError(f"The loss is {loss} at step {self.step}: give a smaller learning_rate.")
                if report is not None:
                    report(self.step, steps, loss)
                self.model.reset_metrics()
            if manager is not None and self.step % checkpoint_every_steps == 0 and self.step < steps:
                manager.save(checkpoint_number=self.step)

    return Watch()


def _rebuild(model, target, wrap: Callable | None):
    """A functional model's graph, rebuilt with the layers of `target`, which is the module keras or tf_keras."""
    tensors = {}
    for layer in model.layers:
        kind = type(layer).__name__
        if kind == "InputLayer":
            tensors[id(layer.output)] = target.Input(tuple(layer.output.shape[1:]), name=layer.name)
            continue
        if kind not in _CONFIGS:
            raise ValueError(
                f"Layer {layer.name} is a {kind}, and the bridge between Keras 3 and tf_keras knows only "
                f"{', '.join(_CONFIGS)}. Strip its wrapper, or give a SqueezeNet of this package."
            )
        config = layer.get_config()
        options = {name: config[name] for name in _CONFIGS[kind]}
        copy = getattr(target.layers, kind)(name=layer.name, dtype="float32", **options)
        inputs = [tensors[id(tensor)] for tensor in _as_list(layer.input)]
        if layer.get_weights():
            copy.build(inputs[0].shape)
            copy.set_weights(layer.get_weights())
            copy = wrap(copy) if wrap is not None else copy
        tensors[id(layer.output)] = copy(inputs if isinstance(layer.input, list) else inputs[0])
    outputs = [tensors[id(tensor)] for tensor in _as_list(model.outputs)]
    inputs = [tensors[id(tensor)] for tensor in _as_list(model.inputs)]
    return target.Model(inputs, outputs[0] if len(outputs) == 1 else outputs, name=model.name)


def _as_list(tensors) -> list:
    return list(tensors) if isinstance(tensors, list | tuple) else [tensors]


def _origin(model: object) -> str:
    kind = type(model)
    return f"{kind.__module__.split('.')[0]} {kind.__name__}"
