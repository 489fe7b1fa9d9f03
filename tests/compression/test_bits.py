import numpy as np
import pytest

from sqz_keras import codec
from sqz_keras.compression.bits import bits_for_size, round_evenly

RANDOM = np.random.default_rng(0)
ARRAYS = {
    "conv1/kernel": RANDOM.uniform(-1, 1, (3, 3, 3, 64)).astype(np.float32),
    "conv1/bias": np.zeros(64, np.float32),
    "conv9/kernel": RANDOM.normal(size=(1, 1, 64, 200)).astype(np.float32),
    "conv9/bias": np.zeros(200, np.float32),
    "conv10/kernel": RANDOM.uniform(-4, 4, (1, 1, 200, 4)).astype(np.float32),
    "conv10/bias": np.zeros(4, np.float32),
}
ALIKE = dict.fromkeys(ARRAYS, 1.0)


def size(bits):
    return len(codec.encode(round_evenly(ARRAYS, bits), {}))


@pytest.mark.parametrize("target", [8_000, 10_000, 13_000])
def test_the_size_is_nearly_met(target):
    bits = bits_for_size(ARRAYS, ALIKE, target)
    assert list(bits) == ["conv1", "conv9", "conv10"]
    assert 0.85 * target < size(bits) <= 1.02 * target


def test_wider_and_more_sensitive_layers_get_more():
    plain = bits_for_size(ARRAYS, ALIKE, 10_000)
    assert plain["conv10"] >= plain["conv1"] + 2, "four times the range"
    keen = bits_for_size(ARRAYS, ALIKE | {"conv1/kernel": 64.0}, 10_000)
    assert keen["conv1"] >= plain["conv1"] + 2, "an eighth of the step"


def test_a_layer_without_influence_comes_last():
    assert bits_for_size(ARRAYS, ALIKE | {"conv9/kernel": 0.0}, size({"conv1": 8, "conv9": 3, "conv10": 8})) == {
        "conv1": 8,
        "conv9": 3,
        "conv10": 8,
    }


def test_too_little_is_refused():
    with pytest.raises(ValueError, match=r"With 3 bits for every layer the weights need .* ask for more than 1000"):
        bits_for_size(ARRAYS, ALIKE, 1000)


def test_values_are_evenly_spaced_over_the_range():
    kernel = np.array([-1.0, -0.8, -0.1, 0.0, 0.2, 0.5], np.float32).reshape(1, 1, 1, 6)
    rounded = round_evenly({"conv1/kernel": kernel, "conv1/bias": kernel[0, 0, 0]}, {"conv1": 3})
    np.testing.assert_allclose(rounded["conv1/kernel"].ravel(), [-1, -0.75, 0, 0, 0.25, 0.5])
    np.testing.assert_array_equal(rounded["conv1/bias"], kernel[0, 0, 0])
    nothing = {"conv1/kernel": np.zeros((1, 1, 2, 2), np.float32)}
    assert not round_evenly(nothing, {"conv1": 3})["conv1/kernel"].any()
