"""Rounding on a trellis: the integers are allowed, match a search of all paths, and give nearer outputs than a grid."""

import itertools

import numpy as np
import pytest

from sqz_keras.codec.entropy import entropy_bits, symbol_counts
from sqz_keras.codec.trellis import NEXT_STATE, to_codes
from sqz_keras.compression import trellis_rounding
from sqz_keras.compression.compensation import round_to_nearest
from sqz_keras.compression.trellis_rounding import round_on_trellis
from tests.compression.test_compensation import correlated_inputs


@pytest.mark.parametrize("density", [1.0, 0.4])
def test_a_trellis_allows_the_integers(density):
    random = np.random.default_rng(0)
    inputs = correlated_inputs(500, 40)
    moments = inputs.T @ inputs / 500
    weights = random.normal(size=(40, 200)).astype(np.float32)
    kept = random.random(weights.shape) < density
    weights *= kept
    integers = round_on_trellis(weights, kept, moments, moments @ weights, 0.2)
    assert not integers[~kept].any()
    assert to_codes(integers, dense=density == 1.0) is not None
    assert {0, 1} == set(np.unique(integers & 1))


def paths(length):
    """All integers from -3 to 3 that a dense trellis allows."""
    for integers in itertools.product(range(-3, 4), repeat=length):
        state = 0
        for integer in integers:
            if integer & 1 != state & 1:
                break
            state = NEXT_STATE[state, integer >> 1 & 1]
        else:
            yield np.array(integers)


def test_the_best_of_all_paths_where_inputs_are_independent(monkeypatch):
    monkeypatch.setattr(trellis_rounding, "_BIT_COST", 0.0)
    weights = np.random.default_rng(1).uniform(-0.8, 0.8, size=(5, 30)).astype(np.float32)
    moments = np.eye(5)
    integers = round_on_trellis(weights, np.ones_like(weights, bool), moments, weights, 0.4)
    for number in range(30):
        best = min(np.sum((0.4 * path - weights[:, number]) ** 2) for path in paths(5))
        actual = np.sum((0.4 * integers[:, number] - weights[:, number]) ** 2)
        assert actual == pytest.approx(best, rel=1e-4)


def test_outputs_are_nearer_than_a_plain_grids_in_as_many_bits():
    random = np.random.default_rng(2)
    inputs, unseen = correlated_inputs(4000, 60)[:2000], correlated_inputs(4000, 60)[2000:]
    moments = inputs.T @ inputs / 2000
    weights = random.normal(size=(60, 300)).astype(np.float32)
    kept = np.ones_like(weights, bool)

    def error(rounded):
        return np.mean((unseen @ (rounded - weights)) ** 2)

    def bits(codes):
        return entropy_bits(symbol_counts(codes)) / codes.size

    integers = round_on_trellis(weights, kept, moments, moments @ weights, 0.25)
    on_trellis = error(0.25 * integers), bits(to_codes(integers, dense=True))
    steps = np.geomspace(0.3, 0.7, 41)
    plain = [
        round_to_nearest(weights, kept, moments, moments @ weights, lambda free, s=s: s * np.rint(free / s))
        for s in steps
    ]
    rates = [bits(np.rint(values / step)) for values, step in zip(plain, steps, strict=True)]
    as_many = int(np.abs(np.array(rates) - on_trellis[1]).argmin())
    assert abs(rates[as_many] - on_trellis[1]) < 0.03
    assert on_trellis[0] < 0.85 * error(plain[as_many])  # 0.7 dB


def test_silent_inputs_and_pruned_filters():
    weights = np.ones((6, 4), np.float32)
    weights[:, 1] = 0
    nothing = np.zeros((6, 6))
    assert not round_on_trellis(weights, weights != 0, nothing, nothing @ weights, 0.25).any()
    integers = round_on_trellis(weights, weights != 0, np.eye(6), weights, 0.25)
    assert not integers[:, 1].any() and integers[:, 0].any()
