"""Fits conv10 to the features of frozen layers by logistic regression before all layers train (arXiv 2202.10054).

A 1x1 convolution and the average after it may be swapped. If the ReLU between them cuts nothing off, the logits are
therefore a linear function of conv10's averaged input, which is computed once for each image.
"""

from __future__ import annotations

from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf

from sqz_keras.extras import needs
from sqz_keras.models.squeezenet import named_arrays

with needs("train"):
    from scipy.optimize import minimize
    from scipy.special import log_softmax

_PENALTY = 5.0  # weight of half the kernel's squared distance from its start, in units of the features' size
_SOLVER = {"maxiter": 500, "gtol": 1e-4}  # ten times finer takes four times as long and answers no better
# Share of the values of conv10 that its ReLU makes 0. With 5% the answers are still the same (docs/results.md); with
# none the biases are so large that class maps are bright everywhere.
_CUT_OFF = 0.01


def fit_head(
    model: keras.Model,
    batches: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
    class_weights: np.ndarray | None = None,
) -> tuple[dict[str, np.ndarray], float, float]:
    """conv10's weights that fit the images best, with the other layers as they are.

    The kernel is kept near the model's own, so that classes with pretrained weights keep what those know. All biases
    are raised by the same number, so that the ReLU cuts off next to nothing; this does not change the softmax.

    Args:
        model: A SqueezeNet with its top, channels last.
        batches: Network inputs (N, S, S, 3), labels int (N,), and weights (N,): 0 for an image that is missing.
        class_weights: Float (classes,), or None for 1 everywhere.

    Returns:
        "conv10/kernel" and "conv10/bias", float32; the mean cross-entropy, and the share of correct answers.

    Raises:
        ValueError: There is no image.
    """
    compute = tf.function(keras.Model(model.input, model.get_layer("conv10").input), reduce_retracing=True)
    features, labels, first = [], [], None
    for images, truth, weights in batches:
        maps, is_image = compute(images, training=False).numpy(), np.asarray(weights) > 0
        features.append(maps.mean(axis=(1, 2))[is_image])
        labels.append(np.asarray(truth)[is_image])
        first = maps if first is None else first
    features, labels = np.concatenate(features), np.concatenate(labels)
    if not len(labels):
        raise ValueError("There is no image to fit conv10 to.")
    start = named_arrays(model)["conv10/kernel"][0, 0]
    weights = np.ones(len(labels)) if class_weights is None else class_weights[labels]
    kernel, bias = fit(features, labels, start, weights)
    logs = log_softmax(features @ kernel + bias, axis=1)
    loss = -float(np.average(logs[np.arange(len(labels)), labels], weights=weights))
    accuracy = float((logs.argmax(axis=1) == labels).mean())
    bias -= min(0, np.quantile(first @ kernel + bias, _CUT_OFF))
    return {"conv10/kernel": kernel[None, None], "conv10/bias": bias}, loss, accuracy


def fit(
    features: np.ndarray, labels: np.ndarray, start: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Multinomial logistic regression by L-BFGS, with an L2 penalty on the distance from a start.

    It minimises mean(weights * cross-entropy) + penalty / (2 * rows) * |rms * (kernel - start)|^2, where rms is the
    root of the features' mean square: the penalty does not depend on their scale.

    Args:
        features: Float (rows, channels).
        labels: Int (rows,).
        start: Float (channels, classes).
        weights: Weights of the rows, float (rows,).

    Returns:
        kernel (channels, classes) and bias (classes,), float32.
    """
    rows, rms = np.arange(len(labels)), np.sqrt(np.mean(np.square(features, dtype=np.float64))) or 1.0
    scaled, center = features / rms, start * rms
    shape = (start.shape[0] + 1, start.shape[1])

    def loss(flat):
        kernel, bias = np.split(flat.reshape(shape), [-1])
        logs = log_softmax(scaled @ kernel + bias, axis=1)
        errors = np.exp(logs)
        errors[rows, labels] -= 1
        errors *= weights[:, None]
        change = kernel - center
        total = _PENALTY / 2 * np.sum(change**2) - weights @ logs[rows, labels]
        gradient = np.concatenate([scaled.T @ errors + _PENALTY * change, errors.sum(axis=0, keepdims=True)])
        return total / len(rows), gradient.ravel() / len(rows)

    begin = np.concatenate([center, np.zeros((1, shape[1]))]).ravel()
    best = minimize(loss, begin, jac=True, method="L-BFGS-B", options=_SOLVER).x.reshape(shape)
    return (best[:-1] / rms).astype(np.float32), best[-1].astype(np.float32)
