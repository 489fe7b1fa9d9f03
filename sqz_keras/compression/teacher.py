"""Targets without labels: the uncompressed net's answers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.compression.tf_keras_bridge import to_tf_keras
from sqz_keras.models.squeezenet import build


def teach(batches, spec: ModelSpec, arrays: Mapping[str, np.ndarray]):
    """Replaces labels with a net's probabilities; a stage that trains on these needs no labelled images.

    Args:
        batches: A tf.data.Dataset of float32 network inputs (B, S, S, C), or of tuples that begin with them: labels, if
            there are any, are replaced, sample weights kept.
        spec: The net.
        arrays: The net's weights by name; they are not trained.

    Returns:
        A tf.data.Dataset of (images, float32 probabilities (B, classes)), followed by the sample weights if
        there are any. It runs one batch ahead of its reader.
    """
    model = to_tf_keras(build(spec, dict(arrays)))

    def answer(images, *others):
        return images, model(images, training=False), *others[1:]

    return batches.map(answer).prefetch(1)
