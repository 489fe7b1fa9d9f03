"""Statistics of a network on unlabelled images: moments of its layers' inputs, and how much each array matters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sqz_keras.extras import needs

with needs("tensorflow"):
    import keras

from sqz_keras.compression.layer_inputs import BATCH

_MOST_POSITIONS = 400  # of an image, in the moments: more say nothing new


def convolutions(model: keras.Model) -> list[keras.layers.Layer]:
    """The model's convolutions, in net order."""
    return [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]


def sensitivities(model: keras.Model, images: np.ndarray) -> dict[str, float]:
    """For each array, the mean squared derivative of the model's log-probability by one of its weights.

    It is the diagonal of the Fisher information, averaged over the array's weights that are not 0, and so the second
    derivative of KL(before || after). The class is drawn from the model's own answer, with a fixed seed, so that no
    label is needed.

    Args:
        model: A model with a softmax.
        images: Float32 (N, S, S, C), as the network takes them.

    Returns:
        By names such as "conv1/kernel", in 1 / weight**2.
    """
    import tensorflow as tf

    layers = convolutions(model)
    kept = {layer.name: layer.get_weights()[0] != 0 for layer in layers}

    def squares(layer, inputs, gradient):
        gradient = tf.reshape(gradient, (tf.shape(gradient)[0], -1, gradient.shape[-1]))
        by_kernel = tf.einsum("bpk,bpo->bko", _patches(inputs, layer), gradient)
        by_kernel *= tf.reshape(tf.cast(kept[layer.name], tf.float32), by_kernel.shape[1:])
        return tf.reduce_sum(by_kernel**2), tf.reduce_sum(tf.reduce_sum(gradient, 1) ** 2)

    result = {}
    for layer, (kernel, bias) in zip(layers, _mean_over_images(model, images, squares), strict=True):
        mask = kept[layer.name]
        result[f"{layer.name}/kernel"] = kernel / max(np.count_nonzero(mask), 1)
        result[f"{layer.name}/bias"] = bias / mask.shape[3]
    return result


def divergences(model: keras.Model, changed: Mapping[str, np.ndarray], images: np.ndarray) -> dict[str, float]:
    """KL(model || the model with one layer's changed weights), for each layer, to the second order.

    It is half of the mean squared derivative of the log-probability along the change. The class is drawn from the
    model's own answer, as in `sensitivities`.

    Args:
        model: A model with a softmax.
        changed: The changed kernels and biases by name.
        images: Float32 (N, S, S, C), as the network takes them.

    Returns:
        By layer, in nats.
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


def _mean_over_images(model: keras.Model, images: np.ndarray, squares: Callable) -> np.ndarray:
    """For each convolution, the sum of `squares(layer, inputs, gradient)` over a batch, as a mean over all images.

    The gradient is that of the log-probability of one class for each image, drawn by its probability, with respect to
    the layer's outputs before the ReLU.
    """
    import tensorflow as tf

    layers = convolutions(model)
    outputs = [layer.output for layer in layers]
    probe = keras.Model(model.inputs, [layer.input for layer in layers] + outputs + model.outputs)

    @_traced_once(images, np.zeros((), np.int32))
    def of_batch(images, seed):
        with tf.GradientTape() as tape:
            tape.watch(images)  # so that all that follows from them is on the tape
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

    @_traced_once(images)
    def measure(images):
        tensors = probe(images, training=False)
        result = []
        for layer, before, after in zip(layers, tensors[: len(layers)], tensors[len(layers) :], strict=True):
            inputs = _patches(before, layer)
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
    """Moments of a convolution's K inputs q in one model with each other and with its O outputs y in another.

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
        inputs: Batches of the layer's inputs in this model, float32 (B, H, W, C); each output position of each image
            gives one vector of K inputs, or some of the positions where there are many.
        convolution: The layer.
        kernel: Its weights in the other model; the targets are without its biases.
        before: Batches of its inputs in the other model, of the same images; None if they are the same.
    """
    import tensorflow as tf

    @_traced_once(*(batches[0] for batches in (inputs, before) if batches))
    def sums(q, *before):
        q = _patches(q, convolution, _MOST_POSITIONS)
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


def _traced_once(*inputs) -> Callable[[Callable], Callable]:
    """A decorator that compiles a function of batches like the `inputs`, but of any size, and of scalars like them.

    A `tf.function` would be traced again for the last, smaller batch, for each of the layers that it is made for.
    """
    import tensorflow as tf

    signature = [tf.TensorSpec((None, *array.shape[1:]) if array.ndim else (), array.dtype) for array in inputs]
    return lambda function: tf.function(function, autograph=False).get_concrete_function(*signature)


def _patches(inputs, layer, most: int | None = None):
    """(B, positions, K): what each output position of a convolution sees, in the order of its kernel.

    At most `most` positions are taken, evenly from all rows and columns.
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
