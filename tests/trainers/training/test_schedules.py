import pytest

from trainers.training.schedules import poly_decay


def test_values_of_the_authors_solver():
    rates = [poly_decay(step, 0.04, 170_000, 1.0) for step in (0, 42_500, 85_000, 169_999, 170_000)]
    assert rates == pytest.approx([0.04, 0.03, 0.02, 0.04 / 170_000, 0.0], abs=1e-15)


def test_values_of_the_solver_of_the_release():
    rates = [poly_decay(step, 0.08, 85_000, 0.5) for step in (0, 63_750, 85_000)]
    assert rates == pytest.approx([0.08, 0.04, 0.0])


def test_warm_up_rises_linearly_to_the_decay():
    rates = [poly_decay(step, 1.0, 100, 1.0, warmup_steps=4) for step in range(5)]
    assert rates == pytest.approx([0.25 * 1.0, 0.5 * 0.99, 0.75 * 0.98, 0.97, 0.96])
