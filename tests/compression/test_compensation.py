"""Rounding with compensation, against the plain definition: after each rounding, solve for the weights still free."""

import numpy as np
import pytest

from sqz_keras.compression.compensation import round_to_nearest

DAMPING = 0.01


def round_to_grid(weights, kept, moments, targets, step):
    values = round_to_nearest(weights, kept, moments, targets, lambda free: step * np.rint(free / step))
    np.testing.assert_allclose(values, step * np.rint(values / step), rtol=1e-12)
    return np.rint(values / step).astype(int)


def correlated_inputs(count, width, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(count, width)) @ random.normal(size=(width, width)) + 0.5


def solve_and_round(weights, kept, moments, targets, step):
    """Rounds one filter by the definition: after each rounding, minimises the quadratic over the weights still free."""
    scale = np.trace(moments) / len(moments)
    damped = moments / scale + DAMPING * np.eye(len(moments))
    aim = targets / scale + DAMPING * weights
    places = [place for place in np.argsort(-np.diag(damped), kind="stable") if kept[place]]
    rounded = np.zeros(len(weights))
    for number, place in enumerate(places):
        free, fixed = places[number:], places[:number]
        residual = aim[free] - damped[np.ix_(free, fixed)] @ rounded[fixed]
        rounded[place] = step * np.rint(np.linalg.solve(damped[np.ix_(free, free)], residual)[0] / step)
    return np.rint(rounded / step).astype(int)


@pytest.mark.parametrize("density", [1.0, 0.4])
def test_as_by_solving_again_after_each_rounding(density):
    random = np.random.default_rng(1)
    before = correlated_inputs(500, 12)
    after = before + random.normal(scale=0.3, size=before.shape)
    weights = random.normal(size=(12, 70)).astype(np.float32)
    kept = random.random(weights.shape) < density
    weights *= kept
    moments, targets = after.T @ after / 500, after.T @ (before @ weights) / 500
    integers = round_to_grid(weights, kept, moments, targets, 0.2)
    for number in range(70):
        expected = solve_and_round(weights[:, number], kept[:, number], moments, targets[:, number], 0.2)
        np.testing.assert_array_equal(integers[:, number], expected)


def test_outputs_are_nearer_than_with_plain_rounding():
    random = np.random.default_rng(2)
    inputs, unseen = correlated_inputs(4000, 30), correlated_inputs(4000, 30)[2000:]
    weights = random.normal(size=(30, 40)).astype(np.float32)
    moments = inputs[:2000].T @ inputs[:2000] / 2000
    integers = round_to_grid(weights, weights != 0, moments, moments @ weights, 0.5)
    compensated, plain = (unseen @ (0.5 * multiples - weights) for multiples in (integers, np.rint(weights / 0.5)))
    assert np.mean(compensated**2) < 0.5 * np.mean(plain**2)


def test_what_the_layers_before_lost_is_made_up_for():
    random = np.random.default_rng(3)
    before = correlated_inputs(2000, 10)
    after = 0.5 * before  # as if everything before had been rounded down
    weights = random.normal(size=(10, 5)).astype(np.float32)
    integers = round_to_grid(weights, weights != 0, after.T @ after / 2000, after.T @ (before @ weights) / 2000, 0.01)
    # The damping holds the weights near their old values; its cost is small compared with the factor of 2.
    lost = after @ (0.01 * integers) - before @ weights
    assert np.mean(lost**2) < 0.02 * np.mean((after @ weights - before @ weights) ** 2)


def test_pruned_weights_and_silent_inputs():
    weights = np.ones((6, 4), np.float32)
    weights[:, 1] = 0
    weights[2:, 2] = 0
    inputs = correlated_inputs(100, 6)
    moments = inputs.T @ inputs / 100
    integers = round_to_grid(weights, weights != 0, moments, moments @ weights, 0.25)
    assert not integers[weights == 0].any()
    assert integers[weights != 0].any()
    nothing = np.zeros((6, 6))
    np.testing.assert_array_equal(round_to_grid(weights, weights != 0, nothing, nothing, 0.25), 4 * (weights != 0))
