"""The authors' Deep Compression release: sizes that must hold, and the time that reading takes."""

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
    """Each non-zero element as the nearest of some values, which are no 0."""
    values = np.sort(values).astype(np.float32)
    found = values[np.searchsorted((values[1:] + values[:-1]) / 2, array)]
    return np.where(array == 0, np.float32(0), found)


def evenly(array, count):
    """63 values, evenly spaced over what is there; k-means begins there."""
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
    shared = {name: evenly(each, 63) if name.endswith("kernel") else each for name, each in release.items()}
    steps = {name: np.float32(0.25 * np.sqrt(np.square(each[each != 0]).mean())) for name, each in release.items()}
    steps |= {name: np.float32(np.abs(each).max() / 100) for name, each in release.items() if name.endswith("bias")}
    grid = {name: np.rint(each / steps[name]) * steps[name] + np.float32(0) for name, each in release.items()}
    for arrays, ratio, limit in ((shared, 0.985, 350_000), (grid, 0.985, 309_000)):
        paper, best = (codec.encode(arrays, HEADER, profile=profile) for profile in ("paper", "max"))
        assert len(best) <= min(ratio * len(paper), limit)
        assert_same(codec.decode(best).arrays, arrays)
        assert_same(codec.decode(paper).arrays, arrays)
