"""The network as it is exported: the models' function, arranged anew so that it takes less time.

The public models keep the one forward path that the paper draws. Here, for serving alone:

- weights are constants, which TensorFlow lays out for its kernels once, at the first call;
- nothing is concatenated: what follows a fire module takes both halves, and a convolution is the sum of two;
- each half is pooled by itself, without rows of zeros that no window, or no maximum, would notice;
- one convolution runs at a time, on all cores, rather than two at once;
- conv10 does not see its border of zeros, whose activations are those of its bias alone.

What each of them gains is in docs/results.md; `benchmarks/serving_rewrites.py` undoes them one by one.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from sqz_keras import ModelSpec
from sqz_keras.architecture.layers import bypass_kinds
from sqz_keras.architecture.metaparameters import FireFilters


class ExportedNetwork:
    """(N, S, S, 3) -> probabilities (N, classes) and features (N, channels), all float32.

    The features are conv10's input, averaged over height and width. `halves` are feature maps (N, H, W, channels)
    whose channels, one after the other, are those that the model has in one tensor.

    Args:
        spec: Describes the model; S is its `input_size`.
        arrays: The model's weights by name. They become constants of these names ("conv1/kernel", ...), always in
            float32, so that a reader of the SavedModel finds them.
        precision: "float32" or "bfloat16": what the convolutions and pools compute in.
    """

    def __init__(self, spec: ModelSpec, arrays: Mapping[str, np.ndarray], precision: str = "float32"):
        self._spec, self._arrays, self._dtype = spec, arrays, tf.as_dtype(precision)

    def __call__(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        weights = self._weights()
        net = self._spec.metaparameters
        pools = set(net.pool_after)
        halves = [self._conv_relu(weights, [tf.cast(images, self._dtype)], "conv1", strides=2)]
        if 1 in pools:
            halves = [self._max_pool(half) for half in halves]
        for fire, bypass in zip(net.fire_modules(), bypass_kinds(net, self._spec.bypass), strict=True):
            halves = self._fire_module(weights, halves, fire, bypass)
            if fire.number in pools:
                halves = [self._max_pool(half) for half in halves]
        features = tf.concat([tf.reduce_mean(tf.cast(half, tf.float32), [1, 2]) for half in halves], -1)
        return self._classify(weights, halves), features

    def _weights(self) -> dict[str, tf.Tensor]:
        return {name: tf.constant(array, tf.float32, name=name) for name, array in self._arrays.items()}

    def _conv_relu(self, weights, halves, layer, strides=1, padding="VALID") -> tf.Tensor:
        kernel, bias = (tf.cast(weights[f"{layer}/{part}"], self._dtype) for part in ("kernel", "bias"))
        *earlier, last = zip(halves, tf.split(kernel, [half.shape[-1] for half in halves], axis=2), strict=True)
        total = tf.nn.bias_add(tf.nn.conv2d(*last, strides, padding), bias)
        # In this order, and of shapes known to be equal, TensorFlow makes one operation of all these.
        for half, part in earlier:
            total = tf.add(total, tf.nn.conv2d(half, part, strides, padding))
        return tf.nn.relu(total)

    def _max_pool(self, half) -> tf.Tensor:
        """Caffe's ceil mode, n -> n // 2: an odd n is covered by whole windows, and an even one lacks a last row."""
        return tf.nn.max_pool2d(half, 3, 2, "VALID" if half.shape[1] % 2 else "SAME")

    def _fire_module(self, weights, halves, fire: FireFilters, bypass: str | None) -> list[tf.Tensor]:
        squeezed = self._conv_relu(weights, halves, f"{fire.name}_squeeze1x1")
        expand1x1 = self._conv_relu(weights, [squeezed], f"{fire.name}_expand1x1")
        squeezed = self._after(squeezed, expand1x1)
        expand3x3 = self._conv_relu(weights, [squeezed], f"{fire.name}_expand3x3", padding="SAME")
        outputs = [self._after(expand1x1, expand3x3), expand3x3]
        if bypass is None:
            return outputs
        if bypass == "convolution":
            halves = [self._conv_relu(weights, halves, f"{fire.name}_bypass1x1")]
        return [tf.add(*both) for both in zip(_parted_like(halves, outputs), outputs, strict=True)]

    def _after(self, tensor: tf.Tensor, earlier: tf.Tensor) -> tf.Tensor:
        """`tensor`, whose users wait for `earlier`."""
        with tf.control_dependencies([earlier]):
            return tf.identity(tensor)

    def _classify(self, weights, halves) -> tf.Tensor:
        activations = tf.cast(self._conv_relu(weights, halves, "conv10"), tf.float32)
        height, width = activations.shape[1:3]
        border = 2 * self._spec.conv10_padding
        count = (height + border) * (width + border)
        of_border = tf.nn.relu(weights["conv10/bias"]) * float(count - height * width)
        return tf.nn.softmax((tf.reduce_sum(activations, [1, 2]) + of_border) / float(count))


def _parted_like(halves, outputs) -> list[tf.Tensor]:
    """The channels of `halves`, divided as those of `outputs` are."""
    sizes = [output.shape[-1] for output in outputs]
    if [half.shape[-1] for half in halves] == sizes:
        return halves
    return tf.split(tf.concat(halves, -1), sizes, axis=-1)
