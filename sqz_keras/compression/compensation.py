"""Rounding a layer so that the errors of its weights cancel in its outputs (OBQ, arXiv 2208.11580, and GPTQ).

The weights of a filter are rounded one after the other. Rounding a weight changes the filter's outputs; the weights
that are not rounded yet are adjusted to undo that change as well as they can. Pruned weights stay 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

_DAMPING = 0.01  # of the mean squared input: how strongly a weight is held if the images say little about it
_CHUNK, _CHUNK_BYTES = 128, 96 << 20  # filters, and bytes of their matrices, that are inverted at once


def round_to_nearest(
    weights: np.ndarray,
    kept: np.ndarray,
    moments: np.ndarray,
    targets: np.ndarray,
    nearest: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """The allowed values with which the layer's outputs on its new inputs are closest to the old outputs.

    W are the old weights, y = W^T p their outputs for inputs p, and q the inputs that the layer gets now that the
    layers before it are rounded. First, one filter at a time, the kept weights are fitted: the fitted W' minimises
    E|y - W'^T q|^2. Then W' is rounded, weights with the largest inputs first; each error is spread over the weights
    that remain, by the same rule.

    Args:
        weights: (K, O) float32, K inputs of each of O filters.
        kept: (K, O) bool, the weights that may differ from 0.
        moments: (K, K) float64, E[q q^T].
        targets: (K, O) float64, E[q y^T].
        nearest: Function from float64 numbers of any shape to the nearest allowed values.

    Returns:
        (K, O) float64.
    """
    if not np.trace(moments):  # no image reaches this layer
        return np.where(kept, nearest(weights.astype(np.float64)), 0)
    result = np.zeros(weights.shape)
    for filters in fitted_filters(weights, kept, moments, targets, largest_first=True):
        rounded = _round_in_order(filters.values, filters.factors, nearest)
        filters.store(rounded, result)
    return result


@dataclasses.dataclass(frozen=True)
class Filters:
    """Some filters of a layer, fitted to its new inputs and not rounded yet.

    Args:
        indices: Int64 (R,), the indices of the filters.
        places: Int64 (R, n), the inputs of their weights, in the order in which they are rounded.
        real: Bool (R, n); False after the last weight of a filter with fewer than n weights.
        values: Float64 (R, n), the fitted weights.
        factors: Float64 (R, n, n), or (1, n, n) if all filters share them: upper Cholesky factors of the inverse
            moments. An error e of weight t costs (e / factors[t, t])**2 if each later weight s is lowered by
            e * factors[t, s] / factors[t, t].
    """

    indices: np.ndarray
    places: np.ndarray
    real: np.ndarray
    values: np.ndarray
    factors: np.ndarray

    def store(self, rounded: np.ndarray, layer: np.ndarray) -> None:
        """Writes (R, n) rounded weights to their places in the layer (K, O)."""
        layer[self.places, self.indices[:, None]] = np.where(self.real, rounded, 0)


def damped(moments: np.ndarray) -> np.ndarray:
    """The moments (K, K) over the mean of their diagonal, which must not be 0; a little is added to the diagonal."""
    return moments / (np.trace(moments) / len(moments)) + _DAMPING * np.eye(len(moments))


def fitted_filters(
    weights: np.ndarray, kept: np.ndarray, moments: np.ndarray, targets: np.ndarray, *, largest_first: bool
) -> Iterator[Filters]:
    """Yields all filters that keep a weight, fitted as in `round_to_nearest`, which describes the arguments.

    The moments must not be all 0. With `largest_first`, weights with the largest inputs come first; otherwise weights
    stay in the order of the inputs.
    """
    targets = targets / (np.trace(moments) / len(moments)) + _DAMPING * weights
    moments = damped(moments)
    order = -np.diag(moments) if largest_first else np.arange(len(moments))
    for filters, places, real in _chunks(kept, order):
        target = np.where(real, targets[places, filters[:, None]], 0.0)
        alike = real.all() and (places == places[0]).all()  # as in a dense layer: one inverse for them all
        rows, real_rows = (places[:1], real[:1]) if alike else (places, real)
        factors = factors_of_inverse(
            np.where(
                real_rows[:, :, None] & real_rows[:, None, :],
                moments[rows[:, :, None], rows[:, None, :]],
                np.eye(rows.shape[1]),
            )
        )
        values = (np.swapaxes(factors, 1, 2) @ (factors @ target[:, :, None]))[:, :, 0]
        yield Filters(filters, places, real, values, factors)


def factors_of_inverse(matrices: np.ndarray) -> np.ndarray:
    """The upper triangular U (R, n, n) with U^T U = the inverse of each positive definite matrix (R, n, n).

    U is made from the Cholesky factor of the matrix with its rows and columns reversed. TensorFlow factorises many
    small matrices at once.
    """
    import tensorflow as tf

    lower = tf.linalg.cholesky(np.ascontiguousarray(matrices[:, ::-1, ::-1]))
    inverse = tf.linalg.triangular_solve(
        lower, tf.eye(matrices.shape[1], batch_shape=[len(matrices)], dtype=lower.dtype)
    )
    return np.ascontiguousarray(inverse.numpy()[:, ::-1, ::-1])


def round_filters(weights: np.ndarray, covariance: np.ndarray, levels: int) -> np.ndarray:
    """Rounds each filter with compensation, to a grid of its own: the step is its largest weight divided by `levels`.

    As in `round_to_nearest`, weights with the largest inputs are rounded first and the others compensate for their
    errors. The largest weight stays as it is, so that the grid can be derived again from the result. Errors of the mean
    output are left to the bias.

    Args:
        weights: (K, O), K inputs of each of O filters; zeros may change too.
        covariance: (K, K) float64, the covariance of the inputs.
        levels: The largest integer.

    Returns:
        float64 (K, O), each a step times integers in -levels..levels.
    """
    moments = damped(covariance) if np.trace(covariance) else _DAMPING * np.eye(len(covariance))
    order = np.argsort(-np.diag(moments), kind="stable")
    (factors,) = factors_of_inverse(moments[np.ix_(order, order)][None])
    step = np.abs(weights).max(axis=0).astype(np.float64) / levels
    step[step == 0] = 1.0
    free = weights[order] / step
    largest = np.abs(free).argmax(axis=0)
    integers = np.zeros_like(free)
    for place in range(len(free)):
        nearest = np.clip(np.rint(free[place]), -levels, levels)
        integers[place] = np.where(largest == place, np.rint(weights[order[place]] / step), nearest)
        free[place:] -= np.outer(factors[place, place:], (free[place] - integers[place]) / factors[place, place])
    result = np.empty_like(free)
    result[order] = integers * step
    return result


def _chunks(kept: np.ndarray, key: np.ndarray):
    """Yields filters of about equal length: indices (R,), places of their weights (R, n), and which are real (R, n).

    Places with the smallest key (K,) come first. A filter with fewer than n weights is filled up with pruned places,
    which are not real.
    """
    counts = kept.sum(axis=0)
    by_count = np.argsort(counts, kind="stable")
    start = int((counts == 0).sum())
    while start < len(by_count):
        size = max(1, _CHUNK_BYTES // (8 * int(counts[by_count[min(start + _CHUNK, len(by_count) - 1)]]) ** 2))
        filters = by_count[start : start + min(size, _CHUNK)]
        most = counts[filters].max()
        order = np.argsort(np.where(kept[:, filters], key[:, None], np.inf), axis=0, kind="stable")
        yield filters, order[:most].T, np.arange(most) < counts[filters][:, None]
        start += len(filters)


def _round_in_order(free: np.ndarray, factors: np.ndarray, nearest: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Rounds (R, n) weights column by column, by the upper Cholesky factors (R, n, n) of the inverse moments."""
    rounded = np.zeros(free.shape)
    for place in range(free.shape[1]):
        rounded[:, place] = nearest(free[:, place])
        error = (free[:, place] - rounded[:, place]) / factors[:, place, place]
        free[:, place:] -= error[:, None] * factors[:, place, place:]
    return rounded
