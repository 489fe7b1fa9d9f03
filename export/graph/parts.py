"""Runs a network on the parts of a batch in parallel.

A convolution in these networks is so small that dividing it among threads costs more than it saves. So the work is
divided between operations: the parts are iterations of a loop, which TensorFlow runs in parallel on its inter-op
threads.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from sqz_keras import ModelSpec

_PART_SIZE = 2  # images; the feature maps of more images do not stay in a core's caches
_AT_ONCE = 16  # parts, if there are that many threads


def run_in_parts(network: Callable, images: tf.Tensor, spec: ModelSpec) -> list[tf.Tensor]:
    """The outputs of `network` for images (N, ...): probabilities (N, classes) and features (N, channels), float32.

    Args:
        network: Computes these outputs for any number of images.
        images: The batch.
        spec: Describes the model.
    """
    sizes = spec.classes, spec.weight_shapes()["conv10/kernel"][2]
    count = tf.shape(images)[0]
    part_size = tf.where(count > _PART_SIZE, _PART_SIZE, 1)  # two images get a thread each
    parts = (count + part_size - 1) // part_size
    results = [tf.TensorArray(tf.float32, parts, infer_shape=False, element_shape=(None, size)) for size in sizes]

    def run_part(part, *results):
        outputs = network(images[part * part_size : (part + 1) * part_size])
        return part + 1, *(result.write(part, output) for result, output in zip(results, outputs, strict=True))

    _, *results = tf.while_loop(lambda part, *_: part < parts, run_part, (0, *results), parallel_iterations=_AT_ONCE)
    return [tf.ensure_shape(result.concat(), (None, size)) for result, size in zip(results, sizes, strict=True)]
