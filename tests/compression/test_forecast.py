"""The share of changed answers, on probabilities for which it is known."""

import numpy as np
import pytest

from sqz_keras.compression.forecast import Forecast, changed_answers, forecast


def probabilities(margin, classes=2, count=2000):
    """Answers whose first logit is larger than the others by up to `margin`, at random."""
    logits = np.zeros((count, classes))
    logits[:, 0] = np.linspace(0, margin, count)
    exponentials = np.exp(logits)
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)


def test_two_equal_classes_change_in_half_of_the_images():
    assert changed_answers(probabilities(0)) == pytest.approx(0.5 / 0.1**0.5, rel=0.03)


def test_margins_wider_than_the_noise_change_as_the_normal_distribution_says():
    """With margins m up to M, noise of s per logit changes E max(0, x) / M of the answers, where x ~ N(0, 2 s**2)."""
    margin = 20.0
    rows = probabilities(margin)
    p = rows.astype(float)[::10, 1]
    # The noise for which the divergence is 0.1, by integration over the difference of the two logits' noise
    x = np.linspace(-60, 60, 601)

    def divergence(s):
        weights = np.exp(-(x**2) / (4 * s**2))
        weights /= weights.sum()
        after = p[:, None] * np.exp(x) / (1 - p[:, None] + p[:, None] * np.exp(x))
        after = np.clip(after, 1e-12, 1 - 1e-12)
        kl = p[:, None] * np.log(p[:, None] / after) + (1 - p[:, None]) * np.log((1 - p[:, None]) / (1 - after))
        return (kl.mean(axis=0) * weights).sum()

    scales = np.linspace(0.5, 6, 111)
    s = scales[np.argmin([abs(divergence(scale) - 0.1) for scale in scales])]
    expected = s / np.sqrt(np.pi) / margin / 0.1**0.5
    assert changed_answers(rows) == pytest.approx(expected, rel=0.1)


def test_answers_that_are_certain_hardly_change():
    certain, unsure = (changed_answers(probabilities(margin, classes=10)) for margin in (40.0, 4.0))
    assert 0 < certain < 0.3 * unsure
    assert np.isfinite(changed_answers(np.eye(3, dtype=np.float32)))


def test_agreement_and_coarseness_are_inverse():
    made = forecast(0.4, probabilities(5.0, classes=10))
    for agreement in (0.8, 0.99):
        assert made.agreement(made.coarseness(agreement)) == pytest.approx(agreement)
    assert Forecast(1.0, 1.0).agreement(2.0) == 0.0
