import numpy as np
import pytest

from trainers.evaluation.metrics import Predictions, accuracy_fields, calibration, count_in_top, wilson_interval


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), Table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_is_that_of_published_tables(correct, total, low, high):
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_stays_inside_0_and_1():
    assert wilson_interval(7, 7)[1] == 1.0
    assert wilson_interval(0, 7)[0] == 0.0


def test_count_in_top_counts_labels_among_the_k_highest():
    scores = np.array([[0.1, 0.5, 0.4], [0.6, 0.3, 0.1], [0.2, 0.2, 0.6]])
    labels = np.array([2, 0, 1])
    assert [count_in_top(scores, labels, k) for k in (1, 2, 3, 5)] == [1, 2, 3, 3]


def test_fields_of_reports():
    assert accuracy_fields("top1", 1, 2) == {
        "top1_accuracy": 0.5,
        "top1_interval": [round(bound, 6) for bound in wilson_interval(1, 2)],
    }


def test_calibration_against_the_formula():
    random = np.random.default_rng(0)
    probability, truth = random.uniform(size=1000), np.zeros(1000, int)
    predicted = (random.uniform(size=1000) > probability**2).astype(int)  # right less often than `probability` says
    measured = calibration(Predictions(np.arange(1000), truth, predicted, probability))
    expected = 0
    for low in np.arange(10) / 10:
        within = (probability > low) & (probability <= low + 0.1)
        expected += abs(np.mean(predicted[within] == 0) - np.mean(probability[within])) * within.mean()
    assert measured.expected_error == pytest.approx(expected, abs=1e-9) and expected > 0.1
    assert measured.counts.sum() == 1000 and measured.correct.sum() == (predicted == 0).sum()


def test_calibration_of_the_ends():
    measured = calibration(Predictions(np.arange(3), np.zeros(3, int), np.array([0, 1, 0]), np.array([0.0, 1.0, 1.0])))
    assert measured.counts.tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    assert measured.expected_error == pytest.approx((1 + 1) / 3)


def test_the_surest_mistakes_come_first():
    truth, predicted = np.array([0, 0, 1, 1, 1]), np.array([1, 0, 0, 0, 0])
    predictions = Predictions(np.arange(5) + 10, truth, predicted, np.array([0.5, 0.99, 0.7, 0.9, 0.6]))
    assert predictions.surest_mistakes(3) == [(13, 1, 0, 0.9), (12, 1, 0, 0.7), (14, 1, 0, 0.6)]
