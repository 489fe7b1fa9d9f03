"""Statistics of a network on unlabelled images: moments of its layers' inputs, and how much each array matters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

from sqz_keras.compression.layer_inputs import BATCH

_MANY_POSITIONS = 1000  # of an image, in the moments: more say nothing new


def convolutions(model: keras.Model) -> list[keras.layers.Layer]:
    """The model's convolutions, in net order."""
    return [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]


def sensitivities(
    model: keras.Model, images: np.ndarray, report: Callable[[int], None] = lambda done: None
) -> dict[str, float]:
    """For each array, the mean squared derivative of the model's log-probability by one of its weights.

    It is the diagonal of the Fisher information, averaged over the array's weights that are not 0, and so the second
    derivative of KL(before || after). The class is drawn from the model's own answer, with a fixed seed, so that no
    label is needed.

    Args:
        model: A model with a softmax.
        images: Float32 (N, S, S, C), as the network takes them.
        report: Called with the number of images done.

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
    for layer, (kernel, bias) in zip(layers, _mean_over_images(model, images, squares, report), strict=True):
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


def _mean_over_images(
    model: keras.Model, images: np.ndarray, squares: Callable, report: Callable[[int], None] = lambda done: None
) -> np.ndarray:
    """For each convolution, the sum of `squares(layer, inputs, gradient)` over a batch, as a mean over all images.

    The gradient is that of the log-probability of one class for each image, drawn by its probability, with respect to
    the layer's outputs before the ReLU.
    """
    import tensorflow as tf

    layers = convolutions(model)
    outputs = [layer.output for layer in layers]
    probe = keras.Model(model.inputs, [layer.input for layer in layers] + outputs + model.outputs)

    @_traced_once(images, tf.TensorSpec((), tf.int32))
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
        report(min(start + BATCH, len(images)))
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


def input_moments(
    before: Sequence[np.ndarray], after: Sequence[np.ndarray], convolution: keras.layers.Layer
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Moments of a convolution's inputs p in one model and q in another.

    Args:
        before: Batches of p, float32 (B, H, W, C); each output position of each image gives one vector of K inputs, of
            many positions one in four.
        after: Batches of q, of the same images.
        convolution: The layer.

    Returns:
        float64 E[q q^T] (K, K), E[p q^T] (K, K), E[p] (K,) and E[q] (K,).
    """
    import tensorflow as tf

    @_traced_once(before[0], tf.TensorSpec((None, *after[0].shape[1:]), tf.float32))
    def sums(p, q):
        p, q = _patches(p, convolution, _MANY_POSITIONS), _patches(q, convolution, _MANY_POSITIONS)
        positions = tf.cast(tf.shape(p)[1], tf.float32)
        p, q = (tf.reshape(patches, (-1, patches.shape[-1])) for patches in (p, q))
        products = tf.matmul(q, q, transpose_a=True), tf.matmul(p, q, transpose_a=True)
        return [total / positions for total in (*products, tf.reduce_sum(p, 0), tf.reduce_sum(q, 0))]

    parts = [[np.asarray(value, np.float64) for value in sums(*both)] for both in zip(before, after, strict=True)]
    images = sum(len(batch) for batch in before)
    return tuple(sum(values) / images for values in zip(*parts, strict=True))


def _traced_once(images: np.ndarray, *more_inputs) -> Callable[[Callable], Callable]:
    """A decorator that compiles a function of a batch of `images`, of any size, and of further inputs.

    A `tf.function` would be traced again for the last, smaller batch, for each of the layers that it is made for.
    """
    import tensorflow as tf

    batch = tf.TensorSpec((None, *images.shape[1:]), tf.float32)
    return lambda function: tf.function(function, autograph=False).get_concrete_function(batch, *more_inputs)


def _patches(inputs, layer, many: int | None = None):
    """(B, positions, K): what each output position of a convolution sees, in the order of its kernel.

    Of more than `many` positions only every second row and column is taken.
    """
    import tensorflow as tf

    (height, width), (down, right) = layer.kernel_size, layer.strides
    if many and layer.output.shape[1] * layer.output.shape[2] > many:
        down, right = 2 * down, 2 * right
    if (height, width) == (1, 1):
        inputs = inputs[:, ::down, ::right]
    else:
        sizes, strides = [1, height, width, 1], [1, down, right, 1]
        inputs = tf.image.extract_patches(inputs, sizes, strides, [1, 1, 1, 1], layer.padding.upper())
    return tf.reshape(inputs, (tf.shape(inputs)[0], -1, inputs.shape[-1]))
