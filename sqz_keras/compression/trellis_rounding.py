"""Rounding a layer on a trellis, with compensation: dependent quantisation (ISO/IEC 15938-17) inside GPTQ.

`codec.trellis` says which integers a state allows. Each of its 8 states keeps the best path that leads to it, the
*survivor*, with the weights that are not rounded yet, adjusted for the survivor's errors. A code's estimated bits are
part of its cost, so rare codes are chosen only where they help.
"""

from __future__ import annotations

import numpy as np

from sqz_keras.codec.trellis import NEXT_STATE, STATES
from sqz_keras.compression.compensation import Filters, damped, factors_of_inverse, fitted_filters

# The cost of a bit, as a share of a squared step, for a weight with typical inputs. From 0.2 to 0.6 it matters little.
_BIT_COST = 0.4
_SMOOTHING = np.array([1, 2, 3, 2, 1]) / 18
_STATES = np.arange(STATES)
# The two ways into each state, (8, 2): the previous state, and bit 1 of the integer.
_FROM, _BIT = (
    np.array(ways).reshape(STATES, 2)
    for ways in zip(*sorted(np.ndindex(STATES, 2), key=lambda way: NEXT_STATE[way]), strict=True)
)
_ODD = _STATES[:, None] & 1
_RESIDUES = (_ODD + 2 * np.arange(2)).astype(np.float32)  # (8, 2), of the integers modulo 4, by state and bit


def round_on_trellis(
    weights: np.ndarray, kept: np.ndarray, moments: np.ndarray, targets: np.ndarray, step: float
) -> np.ndarray:
    """Rounds as `compensation.round_to_nearest` does, but in the order of the inputs and to integers on a trellis.

    Args:
        weights: (K, O) float32, K inputs of each of O filters.
        kept: (K, O) bool, the weights that may differ from 0. If all are kept, 0 is a value like any other.
        moments: (K, K) float64, E[q q^T].
        targets: (K, O) float64, E[q y^T], the moments of the inputs with the outputs to imitate.
        step: The step of the grid.

    Returns:
        Int64 (K, O), multiples of the step; all 0 if no image reaches the layer.
    """
    result = np.zeros(weights.shape, np.int64)
    if not np.trace(moments):
        return result
    dense = bool(kept.all())
    bits = _code_bits(_nearest_codes(weights.ravel() / step, dense), dense)
    costs = 1 / np.diag(factors_of_inverse(damped(moments)[None])[0]) ** 2
    by_input = kept.sum(axis=1)
    typical = np.exp(np.average(np.log(costs), weights=by_input)) if by_input.any() else 1.0
    for filters in fitted_filters(weights, kept, moments, targets, largest_first=False):
        filters.store(_best_path(filters, step, dense, (_BIT_COST * typical * bits).astype(np.float32)), result)
    return result


def _nearest_codes(multiples: np.ndarray, dense: bool) -> np.ndarray:
    """The codes of single weights, if a weight is equally likely to need an even or an odd integer."""
    if dense:
        return np.rint((multiples - 0.5) / 2).astype(np.int64)
    return (np.sign(multiples) * np.rint((np.abs(multiples) + 0.5) / 2)).astype(np.int64)


def _code_bits(codes: np.ndarray, dense: bool) -> np.ndarray:
    """Estimated bits of the codes -m ... m, from how often the given codes occur; m is larger than any of them."""
    most = 2 * int(np.abs(codes).max(initial=0)) + 8
    counts = np.bincount(codes + most, minlength=2 * most + 1).astype(np.float64)
    zeros = 0.0
    if not dense:  # pruned weights are zeros too, but say nothing about the codes next to 0
        zeros, counts[most] = counts[most], 0.0
    counts += np.convolve(counts, _SMOOTHING, "same")
    counts[most] += zeros
    counts += (1e-3 * len(codes) + 1e-3) * np.exp(-np.minimum(np.abs(np.arange(-most, most + 1)) / 3, 50))
    return -np.log2(counts / counts.sum())


def _best_path(filters: Filters, step: float, dense: bool, rates: np.ndarray) -> np.ndarray:
    """Int64 (R, n): the integers of the path with the least cost. `rates` are the costs of codes -m ... m."""
    count, length = filters.values.shape
    free = np.repeat((filters.values / step).astype(np.float32)[:, None], STATES, axis=1)  # (R, 8, n), in steps
    factors = filters.factors.astype(np.float32)
    diagonal = np.diagonal(factors, axis1=1, axis2=2)
    cost = np.full((count, STATES), np.inf, np.float32)
    cost[:, 0] = 0
    rows, most = np.arange(count), len(rates) // 2
    integers = np.zeros((length, count, STATES), np.int32)
    origins = np.zeros((length, count, STATES), np.int8)

    def choice_cost(exact, weight, choices):
        codes = np.floor_divide(choices, 2) if dense else (choices + _ODD * np.sign(choices)) / 2
        rate = rates[np.clip(codes, -most, most).astype(np.int64) + most]
        return (exact[:, :, None] - choices) ** 2 * weight[:, None, None] + rate

    for place in range(length):
        exact, weight = free[:, :, place], 1 / diagonal[:, place] ** 2
        nearest = 4 * np.rint((exact[:, :, None] - _RESIDUES) / 4) + _RESIDUES  # (R, 8, 2), by state and bit
        if not dense:  # 0 is a choice of its own, below
            nearest = np.where(nearest == 0, np.where(exact < 0, -4, 4)[:, :, None], nearest)
        smaller = nearest - 4 * np.sign(nearest)
        if not dense:
            smaller = np.where(smaller * nearest > 0, smaller, nearest)
        costs, of_smaller = choice_cost(exact, weight, nearest), choice_cost(exact, weight, smaller)
        choices = np.where(of_smaller < costs, smaller, nearest)
        costs = (cost[:, :, None] + np.minimum(costs, of_smaller))[:, _FROM, _BIT]  # (R, 8, 2), by next state
        second = costs[:, :, 1] < costs[:, :, 0]
        choices = choices[:, _FROM, _BIT]
        integer = np.where(second, choices[:, :, 1], choices[:, :, 0])
        origin = np.where(second, _FROM[:, 1], _FROM[:, 0])
        best = costs.min(axis=2)
        if not dense:  # 0 leaves the state as it is
            zero = cost + exact**2 * weight[:, None] + rates[most]
            integer, origin = np.where(zero < best, 0, integer), np.where(zero < best, _STATES, origin)
            best = np.minimum(zero, best)
        real = filters.real[:, place, None]
        integer, origin = np.where(real, integer, 0), np.where(real, origin, _STATES)
        cost = np.where(real, best, cost)
        error = np.where(real, np.take_along_axis(exact, origin, axis=1) - integer, 0) / diagonal[:, place, None]
        rest = free[rows[:, None], origin, place + 1 :]
        rest -= error[:, :, None] * factors[:, place, None, place + 1 :]
        free[:, :, place + 1 :] = rest
        integers[place], origins[place] = integer, origin
    state, result = cost.argmin(axis=1), np.zeros((count, length), np.int64)
    for place in reversed(range(length)):
        result[:, place] = integers[place, rows, state]
        state = origins[place, rows, state]
    return result
