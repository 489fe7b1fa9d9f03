"""Targets without labels: what the uncompressed net says of each image."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.compression.tf_keras_bridge import to_tf_keras
from sqz_keras.models.squeezenet import build


def teach(batches, spec: ModelSpec, arrays: Mapping[str, np.ndarray]):
    """Puts a net's probabilities into the place of labels; a stage that trains on them needs no labelled image.

    Args:
        batches: tf.data.Dataset of float32 network inputs (B, S, S, C), or of tuples that begin with them: labels, if
            there are any, are replaced, sample weights kept.
        spec: of the net.
        arrays: its weights by name, which are not trained.

    Returns:
        A tf.data.Dataset of (images, float32 probabilities (B, classes)), with the sample weights behind them where
        there are any. It runs one batch ahead of its reader.
    """
    model = to_tf_keras(build(spec, dict(arrays)))

    def answer(images, *others):
        return images, model(images, training=False), *others[1:]

    return batches.map(answer).prefetch(1)
