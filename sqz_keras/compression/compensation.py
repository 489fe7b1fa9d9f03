"""Rounding a layer so that the errors of its weights cancel in its outputs (OBQ, arXiv 2208.11580, and GPTQ).

The weights of a filter are rounded one after the other. Rounding a weight changes the filter's outputs; the weights
that are not rounded yet are adjusted to undo that change as well as they can. Pruned weights stay 0.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_DAMPING = 0.01  # of the mean squared input: how strongly a weight is held where the images say little about it
_CHUNK_BYTES = 64 << 20  # of the matrices that are inverted at once


def round_to_nearest(
    weights: np.ndarray,
    kept: np.ndarray,
    moments: np.ndarray,
    cross_moments: np.ndarray,
    nearest: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """The allowed values with which the layer's outputs on its new inputs are closest to the old outputs.

    W are the old weights, p their inputs, and q the inputs that the layer gets now that the layers before it are
    rounded. First W' is computed, which minimises E|W^T p - W'^T q|^2 over the kept weights, one filter at a time.
    Then it is rounded, weights with the largest inputs first; each error is spread over the rest by the same rule.

    Args:
        weights: (K, O) float32, K inputs of each of O filters.
        kept: (K, O) bool, the weights that may differ from 0.
        moments: (K, K) float64, E[q q^T].
        cross_moments: (K, K) float64, E[p q^T].
        nearest: Function from float64 numbers of any shape to the nearest allowed values.

    Returns:
        (K, O) float64.
    """
    scale = np.trace(moments) / len(moments)
    if scale == 0:  # no image reaches this layer
        return np.where(kept, nearest(weights.astype(np.float64)), 0)
    weights = weights.astype(np.float64)
    target = cross_moments.T @ weights / scale + _DAMPING * weights
    moments = moments / scale + _DAMPING * np.eye(len(moments))
    result = np.zeros(weights.shape)
    for filters, places, real in _chunks(kept, np.diag(moments)):
        targets = np.where(real, target[places, filters[:, None]], 0.0)
        if real.all() and (places == places[0]).all():  # as in a dense layer: one inverse for them all
            places, real = places[:1], real[:1]
        inverse = np.linalg.inv(
            np.where(
                real[:, :, None] & real[:, None, :],
                moments[places[:, :, None], places[:, None, :]],
                np.eye(places.shape[1]),
            )
        )
        free = (inverse @ targets[:, :, None])[:, :, 0]
        factors = np.swapaxes(np.linalg.cholesky(inverse), 1, 2)
        result[places, filters[:, None]] = np.where(real, _round_in_order(free, factors, nearest), 0)
    return result


def round_filters(weights: np.ndarray, covariance: np.ndarray, levels: int) -> np.ndarray:
    """Each filter rounded to a grid of its own, whose step is its largest weight over `levels`, with compensation.

    As in `round_to_nearest`, weights with the largest inputs are rounded first and the rest compensates for their
    errors. The largest weight stays as it is, so that a grid derived from it is the same. The means of the inputs are
    left to the bias.

    Args:
        weights: (K, O), K inputs of each of O filters; zeros may change too.
        covariance: (K, K) float64, the covariance of the inputs.
        levels: The largest integer.

    Returns:
        float64 (K, O), each a step times integers in -levels..levels.
    """
    scale = np.trace(covariance) / len(covariance)
    moments = covariance / (scale or 1.0) + _DAMPING * np.eye(len(covariance))
    order = np.argsort(-np.diag(moments), kind="stable")
    factors = np.linalg.cholesky(np.linalg.inv(moments[np.ix_(order, order)])).T
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


def _chunks(kept: np.ndarray, diagonal: np.ndarray):
    """Yields filters with about as many weights: their indices (R,), the weights' places (R, n), which are real (R, n).

    A filter with fewer than n weights is filled up with pruned places, which are not real.
    """
    counts = kept.sum(axis=0)
    by_count = np.argsort(counts, kind="stable")
    start = int((counts == 0).sum())
    while start < len(by_count):
        size = max(1, _CHUNK_BYTES // (8 * int(counts[by_count[min(start + 64, len(by_count) - 1)]]) ** 2))
        filters = by_count[start : start + min(size, 64)]
        most = counts[filters].max()
        order = np.argsort(np.where(kept[:, filters], -diagonal[:, None], np.inf), axis=0, kind="stable")
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
