"""Statistics of a network's activations on unlabelled images: moments, means and largest values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from sqz_keras.extras import needs

with needs("tensorflow"):
    import keras

from sqz_keras.compression.layer_inputs import BATCH

_MOST_POSITIONS = 400  # per image, in the moments: more add nothing new


def convolutions(model: keras.Model) -> list[keras.layers.Layer]:
    """The model's convolutions, in net order."""
    return [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]


def layer_statistics(model: keras.Model, images: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Statistics of each convolution's inputs and outputs, from one run of the model.

    Args:
        model: Any model.
        images: Float32 (N, S, S, C), as the network takes them; each output position of each image gives one
            vector of K inputs.

    Returns:
        By layer: float64 covariance (K, K) and mean (K,) of the inputs, and the largest value of each output channel.
    """
    import tensorflow as tf

    layers = convolutions(model)
    probe = keras.Model(model.inputs, [layer.input for layer in layers] + [layer.output for layer in layers])

    @traced_once(images)
    def measure(images):
        tensors = probe(images, training=False)
        result = []
        for layer, before, after in zip(layers, tensors[: len(layers)], tensors[len(layers) :], strict=True):
            inputs = patches(before, layer)
            positions = tf.cast(tf.shape(inputs)[1], tf.float32)
            inputs = tf.reshape(inputs, (-1, inputs.shape[-1]))
            products = tf.matmul(inputs, inputs, transpose_a=True)
            result += [products / positions, tf.reduce_sum(inputs, 0) / positions, tf.reduce_max(after, (0, 1, 2))]
        return result

    batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    parts = [[np.asarray(value, np.float64) for value in measure(tf.constant(batch))] for batch in batches]
    statistics = {}
    for number, layer in enumerate(layers):
        products, sums, largest = (np.stack([part[3 * number + kind] for part in parts]) for kind in range(3))
        mean = sums.sum(axis=0) / len(images)
        covariance = products.sum(axis=0) / len(images) - np.outer(mean, mean)
        statistics[layer.name] = (covariance, mean, largest.max(axis=0))
    return statistics


class Moments(NamedTuple):
    """Moments of a convolution's K inputs q in one model, with each other and with its O outputs y in another model.

    Args:
        inputs: Float64 (K, K), E[q q^T].
        mean_input: Float64 (K,), E[q].
        targets: Float64 (K, O), E[q y^T].
        mean_target: Float64 (O,), E[y].
    """

    inputs: np.ndarray
    mean_input: np.ndarray
    targets: np.ndarray
    mean_target: np.ndarray


def input_moments(
    inputs: Sequence, convolution: keras.layers.Layer, kernel: np.ndarray, before: Sequence | None = None
) -> Moments:
    """Moments of a convolution's inputs in one model, with its outputs in another model as targets.

    Args:
        inputs: Batches of the layer's inputs in this model, float32 (B, H, W, C). Each output position of each image
            gives one vector of K inputs; if there are many positions, only some are used.
        convolution: The layer.
        kernel: The layer's weights in the other model; the targets do not include its biases.
        before: Batches of the layer's inputs in the other model, for the same images; None if both models have the
            same inputs.
    """
    import tensorflow as tf

    @traced_once(*(batches[0] for batches in (inputs, before) if batches))
    def sums(q, *before):
        q = patches(q, convolution, _MOST_POSITIONS)
        positions = tf.cast(tf.shape(q)[1], tf.float32)
        q = tf.reshape(q, (-1, q.shape[-1]))
        result = [tf.matmul(q, q, transpose_a=True), tf.reduce_sum(q, 0)]
        for p in before:
            y = tf.nn.conv2d(p, kernel, _strides(convolution, _MOST_POSITIONS), convolution.padding.upper())
            y = tf.reshape(y, (-1, y.shape[-1]))
            result += [tf.matmul(q, y, transpose_a=True), tf.reduce_sum(y, 0)]
        return [total / positions for total in result]

    pairs = zip(inputs, before, strict=True) if before else zip(inputs, strict=True)
    parts = [[np.asarray(value, np.float64) for value in sums(*batches)] for batches in pairs]
    images = sum(len(batch) for batch in inputs)
    products, mean, *targets = (sum(values) / images for values in zip(*parts, strict=True))
    weights = kernel.reshape(-1, kernel.shape[-1])
    return Moments(products, mean, *(targets or (products @ weights, mean @ weights)))


def traced_once(*inputs) -> Callable[[Callable], Callable]:
    """A decorator that compiles a function of tensors like the `inputs`, which are scalars or batches of any size.

    A plain `tf.function` would be traced again for the last, smaller batch, once for each layer.
    """
    import tensorflow as tf

    signature = [tf.TensorSpec((None, *array.shape[1:]) if array.ndim else (), array.dtype) for array in inputs]
    return lambda function: tf.function(function, autograph=False).get_concrete_function(*signature)


def patches(inputs, layer, most: int | None = None):
    """(B, positions, K): what each output position of a convolution sees, in the order of its kernel.

    At most `most` positions are taken, spread evenly over all rows and columns.
    """
    import tensorflow as tf

    (height, width), (down, right) = layer.kernel_size, _strides(layer, most)
    if (height, width) == (1, 1):
        inputs = inputs[:, ::down, ::right]
    else:
        sizes, strides = [1, height, width, 1], [1, down, right, 1]
        inputs = tf.image.extract_patches(inputs, sizes, strides, [1, 1, 1, 1], layer.padding.upper())
    return tf.reshape(inputs, (tf.shape(inputs)[0], -1, inputs.shape[-1]))


def _strides(layer, most: int | None) -> tuple[int, int]:
    """Multiples of the layer's strides that leave at most `most` output positions."""
    _, height, width, _ = layer.output.shape
    times = 1
    while most and -(-height // times) * -(-width // times) > most:
        times += 1
    return tuple(times * stride for stride in layer.strides)
