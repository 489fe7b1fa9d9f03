"""A network that runs on a part of a batch at a time."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from sqz_keras import ModelSpec

_PART_SIZE = 8  # images: the feature maps of more do not stay in the processor's caches


def in_parts(network: Callable, spec: ModelSpec) -> Callable:
    """`network`, run on parts of its input, one after the other.

    Both take images (N, S, S, 3) and give probabilities (N, classes) and features (N, channels), all float32.
    """
    sizes = spec.classes, spec.weight_shapes()["conv10/kernel"][2]

    def run(images):
        parts = (tf.shape(images)[0] + _PART_SIZE - 1) // _PART_SIZE
        results = [tf.TensorArray(tf.float32, parts, infer_shape=False, element_shape=(None, size)) for size in sizes]

        def run_part(part, *results):
            outputs = network(images[part * _PART_SIZE : (part + 1) * _PART_SIZE])
            return part + 1, *(result.write(part, output) for result, output in zip(results, outputs, strict=True))

        _, *results = tf.while_loop(lambda part, *_: part < parts, run_part, (0, *results), parallel_iterations=1)
        return [tf.ensure_shape(result.concat(), (None, size)) for result, size in zip(results, sizes, strict=True)]

    return run
