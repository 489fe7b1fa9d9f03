"""The Kullback-Leibler divergence of a model's answers from another model's."""

from __future__ import annotations

import numpy as np

_LEAST_PROBABILITY = 1e-37  # below this, float32's softmax gives 0


def mean_divergence(reference: np.ndarray, answers: np.ndarray) -> float:
    """Mean KL(reference || answers) of probabilities (N, classes), in nats."""
    ratios = np.log(np.maximum(reference, 1e-20)) - np.log(np.maximum(answers, 1e-20))
    return float(np.mean(np.sum(reference * ratios, axis=1, dtype=np.float64)))


def softened_divergence(reference, answers, temperature):
    """For each image, KL(reference || answers) with both softened by a temperature, times the temperature squared.

    A trained net is so sure of most images that its plain probabilities hold little information; softened, they show
    for every image how similar the classes look. The square keeps the size of the gradient (G. Hinton, O. Vinyals and
    J. Dean, arXiv 1503.02531, section 2).

    Args:
        reference: Float32 tensor of probabilities (B, classes).
        answers: Likewise, of the net that is trained.
        temperature: Divides the logarithms of the probabilities.

    Returns:
        Float32 tensor (B,), in nats.
    """
    import tensorflow as tf

    expected, actual = (
        tf.nn.log_softmax(tf.math.log(tf.maximum(probabilities, _LEAST_PROBABILITY)) / temperature)
        for probabilities in (reference, answers)
    )
    return temperature**2 * tf.reduce_sum(tf.exp(expected) * (expected - actual), axis=-1)
