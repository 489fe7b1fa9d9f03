"""How much the answers depend on each array, from unlabelled images: the diagonal of the Fisher information."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from sqz_keras.extras import needs

with needs("tensorflow"):
    import keras

from sqz_keras.compression.activations import convolutions, patches, traced_once
from sqz_keras.compression.layer_inputs import BATCH


def sensitivities(model: keras.Model, images: np.ndarray) -> dict[str, float]:
    """For each array, the mean squared derivative of the model's log-probability with respect to one of its weights.

    This is the diagonal of the Fisher information, averaged over the array's weights that are not 0, and therefore the
    second derivative of KL(before || after). The class is drawn from the model's own answer, with a fixed seed, so no
    label is needed.

    Args:
        model: A model with a softmax.
        images: Float32 (N, S, S, C), as the network takes them.

    Returns:
        Sensitivities by name, such as "conv1/kernel", in 1 / weight**2.
    """
    import tensorflow as tf

    layers = convolutions(model)
    kept = {layer.name: layer.get_weights()[0] != 0 for layer in layers}

    def squares(layer, inputs, gradient):
        gradient = tf.reshape(gradient, (tf.shape(gradient)[0], -1, gradient.shape[-1]))
        by_kernel = tf.einsum("bpk,bpo->bko", patches(inputs, layer), gradient)
        by_kernel *= tf.reshape(tf.cast(kept[layer.name], tf.float32), by_kernel.shape[1:])
        return tf.reduce_sum(by_kernel**2), tf.reduce_sum(tf.reduce_sum(gradient, 1) ** 2)

    result = {}
    for layer, (kernel, bias) in zip(layers, _mean_over_images(model, images, squares), strict=True):
        mask = kept[layer.name]
        result[f"{layer.name}/kernel"] = kernel / max(np.count_nonzero(mask), 1)
        result[f"{layer.name}/bias"] = bias / mask.shape[3]
    return result


def divergences(model: keras.Model, changed: Mapping[str, np.ndarray], images: np.ndarray) -> dict[str, float]:
    """KL(model || the model with one layer's changed weights), for each layer, to second order.

    It is half of the mean squared derivative of the log-probability along the change. The class is drawn from the
    model's own answer, as in `sensitivities`.

    Args:
        model: A model with a softmax.
        changed: The changed kernels and biases by name.
        images: Float32 (N, S, S, C), as the network takes them.

    Returns:
        Divergences by layer, in nats.
    """
    import tensorflow as tf

    layers = convolutions(model)
    changes = {}
    for layer in layers:
        kernel, bias = layer.get_weights()
        changes[layer.name] = changed[f"{layer.name}/kernel"] - kernel, changed[f"{layer.name}/bias"] - bias

    def squares(layer, inputs, gradient):
        kernel, bias = changes[layer.name]
        change = tf.nn.conv2d(inputs, kernel, layer.strides, layer.padding.upper()) + bias
        return tf.reduce_sum(tf.reduce_sum(gradient * change, (1, 2, 3)) ** 2)

    halves = _mean_over_images(model, images, squares) / 2
    return dict(zip((layer.name for layer in layers), halves.tolist(), strict=True))


def with_divergences(
    sensitivity: Mapping[str, float],
    divergences: Mapping[str, float],
    steps: Mapping[str, np.float32 | None],
    kept: Mapping[str, np.ndarray],
) -> dict[str, float]:
    """The sensitivities; those of kernels now follow from how far rounding to these steps moves the answers.

    Args:
        sensitivity: What `sensitivities` returned.
        divergences: What `divergences` returned for the rounded layers.
        steps: Step of the grid by array; None for an array of zeros.
        kept: Which weights may differ from 0, by array.
    """
    measured = {}
    for layer, divergence in divergences.items():
        name = f"{layer}/kernel"
        measured[name] = divergence / max(kept[name].sum(), 1) / float(steps[name] or 1) ** 2
    # The sensitivities of biases are scaled by the same factor as those of kernels on average.
    both = [(sensitivity[name], value) for name, value in measured.items() if value > 0 and sensitivity[name] > 0]
    factor = np.exp(np.mean([np.log(value / before) for before, value in both])) if both else 1.0
    return {name: measured.get(name, float(factor * value)) for name, value in sensitivity.items()}


def _mean_over_images(model: keras.Model, images: np.ndarray, squares: Callable) -> np.ndarray:
    """For each convolution, the mean over all images of `squares(layer, inputs, gradient)`, which sums over a batch.

    The gradient is that of each image's log-probability of one class, drawn by probability, with respect to the layer's
    outputs before the ReLU.
    """
    import tensorflow as tf

    layers = convolutions(model)
    outputs = [layer.output for layer in layers]
    probe = keras.Model(model.inputs, [layer.input for layer in layers] + outputs + model.outputs)

    @traced_once(images, np.zeros((), np.int32))
    def of_batch(images, seed):
        with tf.GradientTape() as tape:
            tape.watch(images)  # so that everything computed from them is on the tape
            *tensors, probabilities = probe(images, training=False)
            logarithms = tf.math.log(probabilities + 1e-20)
            drawn = tf.random.stateless_categorical(logarithms, 1, (0, seed))
            chosen = tf.reduce_sum(tf.gather(logarithms, drawn, batch_dims=1))
        inputs, outputs = tensors[: len(layers)], tensors[len(layers) :]
        gradients = [
            tf.where(after > 0, gradient, 0.0)  # through the ReLU
            for after, gradient in zip(outputs, tape.gradient(chosen, outputs), strict=True)
        ]
        return [squares(*of_layer) for of_layer in zip(layers, inputs, gradients, strict=True)]

    total = 0.0
    for start in range(0, len(images), BATCH):
        total += np.array(of_batch(tf.constant(images[start : start + BATCH]), tf.constant(start)), np.float64)
    return total / len(images)
