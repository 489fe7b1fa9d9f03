"""Biases move by multiples of a step that the codec then finds; the rounding is too small for a network to notice."""

import numpy as np
import pytest

from sqz_keras import codec
from sqz_keras.compression.bias_changes import round_bias_changes


@pytest.fixture
def old():
    generator = np.random.default_rng(0)
    return {
        "conv10/kernel": generator.normal(size=(1, 1, 40, 1000)).astype(np.float32),
        "conv10/bias": generator.normal(0, 0.5, 1000).astype(np.float32),
    }


@pytest.mark.parametrize("scale", [1e-6, 1e-4, 1e-2, 1.0])
def test_changes_are_rounded_and_take_few_bytes(old, scale):
    change = np.random.default_rng(1).normal(0, scale, 1000).astype(np.float32)
    new = old | {"conv10/bias": old["conv10/bias"] + change}
    rounded = round_bias_changes(new, old)
    assert rounded["conv10/kernel"] is old["conv10/kernel"]
    step = max(np.abs(new["conv10/bias"]).max() * 2.0**-16, np.abs(change).max() / 2047) * 2
    error = np.abs(rounded["conv10/bias"] - new["conv10/bias"])
    assert error.max() <= step / 2 + 1e-6 and rounded["conv10/bias"].dtype == np.float32
    base = codec.encode(old, {})
    delta = codec.encode(rounded, {}, base=base)
    np.testing.assert_array_equal(codec.decode(delta, base).arrays["conv10/bias"], rounded["conv10/bias"])
    kinds = [array.kind for array in codec.describe(delta, base).arrays]
    assert kinds == ["same", "same" if scale == 1e-6 else "planes_moved"]
    assert len(delta) < 1600 < 3000 < len(codec.encode(new, {}, base=base))


def test_what_did_not_change_or_is_new_stays(old):
    other = {"conv10/bias": old["conv10/bias"], "fire2_squeeze1x1/bias": np.ones(3, np.float32)}
    rounded = round_bias_changes(other, old)
    assert all(rounded[name] is array for name, array in other.items())
    shorter = {"conv10/bias": old["conv10/bias"][:7] + 1}
    assert round_bias_changes(shorter, old)["conv10/bias"] is shorter["conv10/bias"]
