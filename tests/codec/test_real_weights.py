"""The authors' Deep Compression release: required sizes, and the time of encoding and decoding."""

import time

import numpy as np
import pytest

from sqz_keras import codec
from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.weights.readers import read_arrays
from tests.codec.samples import assert_same

HEADER = {"model_spec": ModelSpec(conv10_padding=1).to_json(), "provenance": {"from": "compressed_SqueezeNet.net"}}


@pytest.fixture(scope="module")
def release(test_data):
    return read_arrays(test_data / "weights" / "deep_compression" / "compressed_SqueezeNet.net")


def nearest(array, values):
    """Replaces every non-zero element by the nearest of some non-zero values."""
    values = np.sort(values).astype(np.float32)
    nearest_values = values[np.searchsorted((values[1:] + values[:-1]) / 2, array)]
    return np.where(array == 0, np.float32(0), nearest_values)


def evenly(array, count):
    """Rounds to `count` values, evenly spaced over the range of the array."""
    return nearest(array, np.linspace(array.min(), array.max(), count) + 1e-6)


@pytest.mark.parametrize(("profile", "limit"), [("paper", 537_500), ("max", 524_500)])
def test_the_release_without_loss(release, profile, limit):
    start = time.process_time()
    data = codec.encode(release, HEADER, profile=profile)
    assert time.process_time() - start < 10  # 1 s on a quiet machine
    assert len(data) <= limit
    start = time.process_time()
    contents = codec.decode(data)
    assert time.process_time() - start < 2  # 0.2 s on a quiet machine
    assert_same(contents.arrays, release)
    assert contents.header == HEADER


def test_max_is_smaller_than_paper_on_few_bits(release):
    """63 values a kernel, and a uniform grid with biases on grids, as quantisation writes them."""
    shared = {name: evenly(array, 63) if name.endswith("kernel") else array for name, array in release.items()}
    steps = {name: np.float32(0.25 * np.sqrt(np.square(array[array != 0]).mean())) for name, array in release.items()}
    steps |= {name: np.float32(np.abs(array).max() / 100) for name, array in release.items() if name.endswith("bias")}
    grid = {name: np.rint(array / steps[name]) * steps[name] + np.float32(0) for name, array in release.items()}
    for arrays, ratio, limit in ((shared, 0.985, 350_000), (grid, 0.985, 309_000)):
        paper, best = (codec.encode(arrays, HEADER, profile=profile) for profile in ("paper", "max"))
        assert len(best) <= min(ratio * len(paper), limit)
        assert_same(codec.decode(best).arrays, arrays)
        assert_same(codec.decode(paper).arrays, arrays)
