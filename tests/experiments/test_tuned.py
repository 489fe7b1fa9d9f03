"""The arithmetic of the comparison over seeds; the runs take too long for a test."""

import pytest

from experiments import tuned


def test_the_interval_is_students():
    mean, half = tuned.mean_and_half_interval([0.1, 0.2, 0.3])
    assert (mean, half) == (pytest.approx(0.2), pytest.approx(4.303 * 0.1 / 3**0.5))
    assert tuned.mean_and_half_interval([0.4]) == (0.4, None)
