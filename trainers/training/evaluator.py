"""Evaluates the weights of a run on a split, with one model in float32 on one device, as it will be kept."""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.models.squeezenet import assign, build
from trainers.data.batches import evaluation_batches
from trainers.data.source import Source
from trainers.evaluation.metrics import LossNotFiniteError, Predictions

_BATCH = 128  # images at a time


class Evaluator:
    """Evaluates weights on the splits of a source.

    Args:
        spec: The model.
        source: The labelled images.
    """

    def __init__(self, spec: ModelSpec, source: Source):
        self.model = build(spec)
        # Traced here, once for batches of any size: the last batch of a split is smaller.
        batch = tf.TensorSpec((None, *self.model.input_shape[1:]), tf.float32)
        predict = tf.function(lambda images: self.model(images, training=False), autograph=False)
        self._predict = predict.get_concrete_function(batch)
        self._batches = functools.cache(
            lambda split: evaluation_batches(source, split, spec, batch_size=_BATCH)  # takes a second to make
        )

    def evaluate(self, split: str, arrays: dict[str, np.ndarray]) -> Predictions:
        """The model's predictions with these weights, for all images of a split that can be read.

        Raises:
            ValueError: None of the images can be read.
            LossNotFiniteError: The answers are not finite.
        """
        assign(self.model, arrays)
        parts = []
        for images, labels, weights in self._batches(split):
            scores = self._predict(images).numpy()
            if not np.isfinite(scores).all():  # as after an update with too high a rate, whose own loss was finite
                raise LossNotFiniteError(
                    f"The network's answers to the {split!r} split are not finite; training stopped. Lower "
                    "base_learning_rate."
                )
            parts.append((weights.numpy() > 0, labels.numpy(), scores.argmax(1), scores.max(1)))
        read, *columns = map(np.concatenate, zip(*parts, strict=True))
        if not read.any():
            raise ValueError(f"None of the {len(read)} images of the {split!r} split can be decoded. Replace them.")
        return Predictions(np.flatnonzero(read), *(column[read] for column in columns))
