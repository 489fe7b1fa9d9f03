"""The network as it is exported: it computes what the models compute, rearranged to take less time.

The public models keep the single forward path that the paper draws. Here, for serving alone:

- weights are constants, which TensorFlow lays out for its kernels once, at the first call;
- nothing is concatenated: what follows a fire module takes both halves, and a convolution is the sum of two;
- each half is pooled by itself, without rows of zeros that no window, or no maximum, would notice;
- the maps are divided into tiles of rows, so that two threads share an image;
- conv10 does not see its border of zeros, whose activations come from its bias alone.

docs/results.md says what each of these changes gains; `benchmarks/serving_rewrites.py` undoes them one by one.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from export.graph import tiles
from sqz_keras import ModelSpec
from sqz_keras.architecture.layers import bypass_kinds
from sqz_keras.architecture.metaparameters import FireFilters


class ExportedNetwork:
    """(N, S, S, 3) -> probabilities (N, classes) and features (N, channels), all float32.

    The features are conv10's input, averaged over height and width. In the methods, `halves` are feature maps (N, rows,
    W, channels) of a tile; concatenated along the channels, they are what the model has in one tensor.

    Args:
        spec: Describes the model; S is its `input_size`.
        arrays: The model's weights by name. They become constants with these names ("conv1/kernel", ...), always in
            float32, so that a reader of the SavedModel finds them.
        precision: "float32" or "bfloat16": what the convolutions and pools compute in.
    """

    def __init__(self, spec: ModelSpec, arrays: Mapping[str, np.ndarray], precision: str = "float32"):
        self._spec, self._arrays, self._dtype = spec, arrays, tf.as_dtype(precision)

    def __call__(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        weights = self._weights()
        net = self._spec.metaparameters
        stages = self._stages()
        images = tf.cast(images, self._dtype)
        # conv1 has a stride of 2: its windows begin at every second row.
        rows = [(2 * start, 2 * (end - 1) + net.stem_kernel) for start, end in stages[0].rows]
        parts = [[self._conv_relu(weights, [images[:, start:end]], "conv1", strides=2)] for start, end in rows]
        if 1 in net.pool_after:
            parts = self._max_pool(parts, stages.pop(0))
        for fire, bypass in zip(net.fire_modules(), bypass_kinds(net, self._spec.bypass), strict=True):
            parts = self._fire_module(weights, parts, stages[0], fire, bypass)
            if fire.number in net.pool_after:
                parts = self._max_pool(parts, stages.pop(0))
        return self._classify(weights, parts, stages[0].size), self._features(parts, stages[0].size)

    def _weights(self) -> dict[str, tf.Tensor]:
        return {name: tf.constant(array, tf.float32, name=name) for name, array in self._arrays.items()}

    def _conv_relu(self, weights, halves, layer, strides=1, padding="VALID") -> tf.Tensor:
        kernel, bias = (tf.cast(weights[f"{layer}/{part}"], self._dtype) for part in ("kernel", "bias"))
        *earlier, last = zip(halves, tf.split(kernel, [half.shape[-1] for half in halves], axis=2), strict=True)
        total = tf.nn.bias_add(tf.nn.conv2d(*last, strides, padding), bias)
        # In this order, and with shapes known to be equal, TensorFlow fuses all of these into one operation.
        for half, part in earlier:
            total = tf.add(total, tf.nn.conv2d(half, part, strides, padding))
        return tf.nn.relu(total)

    def _stages(self) -> list[tiles.Stage]:
        layers = [layer for layer in self._spec.layers() if layer.name == "conv1" or layer.kind == "max pool"]
        return tiles.divide([layer.size for layer in layers])

    def _max_pool(self, parts, stage: tiles.Stage) -> list[list[tf.Tensor]]:
        """Caffe's ceil mode, n -> n // 2: whole windows cover an odd n; an even n lacks a last row, which is padded."""
        missing = 1 - stage.size % 2
        paddings = [[[0, 0], [0, missing * bottom], [0, missing], [0, 0]] for _, bottom in stage.borders()]
        return [
            [tf.nn.max_pool2d(half, 3, 2, padding if missing else "VALID") for half in halves]
            for halves, padding in zip(parts, paddings, strict=True)
        ]

    def _fire_module(self, weights, parts, stage: tiles.Stage, fire: FireFilters, bypass: str | None):
        squeezed = [self._conv_relu(weights, halves, f"{fire.name}_squeeze1x1") for halves in parts]
        expand1x1 = [self._conv_relu(weights, [part], f"{fire.name}_expand1x1") for part in squeezed]
        paddings = [[[0, 0], [int(top), int(bottom)], [1, 1], [0, 0]] for top, bottom in stage.borders()]
        expand3x3 = [
            self._conv_relu(weights, [part], f"{fire.name}_expand3x3", padding=padding)
            for part, padding in zip(stage.with_neighbours(squeezed), paddings, strict=True)
        ]
        outputs = [list(halves) for halves in zip(expand1x1, expand3x3, strict=True)]
        if bypass is None:
            return outputs
        if bypass == "convolution":
            parts = [[self._conv_relu(weights, halves, f"{fire.name}_bypass1x1")] for halves in parts]
        return [_add(*both) for both in zip(parts, outputs, strict=True)]

    def _features(self, parts, size: int) -> tf.Tensor:
        sums = [tf.concat([_sum(half) for half in halves], -1) for halves in parts]
        return tf.add_n(sums) / float(size**2)

    def _classify(self, weights, parts, size: int) -> tf.Tensor:
        total = tf.add_n([_sum(self._conv_relu(weights, halves, "conv10")) for halves in parts])
        count = (size + 2 * self._spec.conv10_padding) ** 2
        of_border = tf.nn.relu(weights["conv10/bias"]) * float(count - size**2)
        return tf.nn.softmax((total + of_border) / float(count))


def _sum(tensor: tf.Tensor) -> tf.Tensor:
    """(N, rows, W, channels) -> (N, channels), float32."""
    return tf.reduce_sum(tf.cast(tensor, tf.float32), [1, 2])


def _add(halves, outputs) -> list[tf.Tensor]:
    return [tf.add(*both) for both in zip(_parted_like(halves, outputs), outputs, strict=True)]


def _parted_like(halves, outputs) -> list[tf.Tensor]:
    """The channels of `halves`, divided as the channels of `outputs` are."""
    sizes = [output.shape[-1] for output in outputs]
    if [half.shape[-1] for half in halves] == sizes:
        return halves
    return tf.split(tf.concat(halves, -1), sizes, axis=-1)
