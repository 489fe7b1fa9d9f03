"""The estimates of signal and direction, on gradients whose signal and direction are known."""

import numpy as np
import pytest

from experiments import tuning_signal


def test_signal_and_direction_are_those_that_the_gradients_are_made_with():
    rng, weights, batches = np.random.default_rng(0), 20_000, 40
    mean, other_mean = rng.normal(size=(2, weights))
    other_mean = 0.6 * mean + 0.8 * other_mean
    noise, other_noise = rng.normal(size=(2, batches, weights))
    signal, of_means, of_batch = tuning_signal.compare(mean + 2 * noise, other_mean + other_noise)
    assert signal == pytest.approx(1 / 4, rel=0.1)
    assert of_means == pytest.approx(0.6, abs=0.05)
    assert of_batch == pytest.approx(0.6 * (1 / 5) ** 0.5, abs=0.03)


def test_noise_alone_has_no_signal():
    rows = np.random.default_rng(0).normal(size=(2, 40, 20_000))
    signal, _, of_batch = tuning_signal.compare(*rows)
    assert signal < 0.01 and abs(of_batch) < 0.1
