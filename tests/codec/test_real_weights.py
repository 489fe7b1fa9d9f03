"""The authors' Deep Compression release: required sizes, and the time of encoding and decoding."""

import lzma
import time
import zlib

import numpy as np
import pytest

from sqz_keras import codec
from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.codec import planes
from sqz_keras.codec.decoder import decode_file
from sqz_keras.codec.trellis import NEXT_STATE
from sqz_keras.weights.readers import read_arrays
from tests.codec.samples import assert_same

HEADER = {"model_spec": ModelSpec(conv10_padding=1).to_json(), "provenance": {"from": "compressed_SqueezeNet.net"}}


@pytest.fixture(scope="module")
def release(test_data):
    return read_arrays(test_data / "weights" / "deep_compression" / "compressed_SqueezeNet.net")


def nearest(array, values):
    """Replaces every non-zero element by the nearest of `values`, none of which is zero."""
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
    """On 63 values per kernel, and on uniform grids for kernels and biases, as quantisation writes them."""
    shared = {name: evenly(array, 63) if name.endswith("kernel") else array for name, array in release.items()}
    steps = {name: np.float32(0.25 * np.sqrt(np.square(array[array != 0]).mean())) for name, array in release.items()}
    steps |= {name: np.float32(np.abs(array).max() / 100) for name, array in release.items() if name.endswith("bias")}
    grid = {name: np.rint(array / steps[name]) * steps[name] + np.float32(0) for name, array in release.items()}
    for arrays, ratio, limit in ((shared, 0.985, 350_000), (grid, 0.985, 309_000)):
        paper, best = (codec.encode(arrays, HEADER, profile=profile) for profile in ("paper", "max"))
        assert len(best) <= min(ratio * len(paper), limit)
        assert_same(codec.decode(best).arrays, arrays)
        assert_same(codec.decode(paper).arrays, arrays)


NETS = {
    "v1.0, compressed": ("deep_compression/compressed_SqueezeNet.net", False),
    "v1.0, float16": ("deep_compression/compressed_SqueezeNet.net", True),
    "v1.1, the authors'": ("squeezenet1.1_authors/SqueezeNet_fp16.onnx", False),
    "v1.1, Gluon's": ("squeezenet1.1_gluon/weights", False),
    "v1.1, Gluon's, float16": ("squeezenet1.1_gluon/weights", True),
}


def spent_on_floats(test_data, net):
    """A net's arrays, its file in profile max, the planes of its floats, and the bytes of the planes in the file."""
    path, rounded = NETS[net]
    arrays = read_arrays(test_data / "weights" / path)
    if rounded:
        arrays = {name: array.astype(np.float16).astype(np.float32) for name, array in arrays.items()}
    data = codec.encode(arrays, HEADER)
    layout = codec.describe(data)
    floats = [array.name for array in layout.arrays if array.kind == "planes"]
    byte_planes = planes.pack([arrays[name] for name in floats], [])[: planes.FLOAT_PLANES]
    bitmaps = 32 * decode_file(data).modes.count(planes.MODELLED)
    spent = sum(array.bytes["raw"] for array in layout.arrays) + bitmaps
    return arrays, data, [plane.tobytes() for plane in byte_planes], spent


@pytest.mark.large
@pytest.mark.parametrize("net", NETS)
def test_max_is_never_larger_than_general_compressors(test_data, net):
    """Compares the whole file with `paper`, and the planes of floats with xz and zlib."""
    arrays, data, byte_planes, spent = spent_on_floats(test_data, net)
    assert_same(codec.decode(data).arrays, arrays)
    assert len(data) <= len(codec.encode(arrays, HEADER, profile="paper"))
    for compress in (lzma.compress, zlib.compress):
        assert spent <= sum(len(compress(plane)) for plane in byte_planes)


@pytest.mark.large
@pytest.mark.parametrize("net", NETS)
def test_max_is_never_larger_than_brotli(test_data, net):
    brotli = pytest.importorskip("brotli", reason="brotli is not installed; the planes are compared with xz and zlib")
    _, _, byte_planes, spent = spent_on_floats(test_data, net)
    assert spent <= sum(len(brotli.compress(plane, quality=11, lgwin=24)) for plane in byte_planes)


def on_trellis(array):
    """Rounds to the nearest values on a trellis, one element of every filter at a time; zeros stay 0."""
    step = np.float32(0.2 * np.sqrt(np.square(array[array != 0]).mean()))
    goals = (array / step).reshape(-1, array.shape[-1])
    integers, state = np.zeros(goals.shape, np.int64), np.zeros(array.shape[-1], np.int64)
    for number, goal in enumerate(goals):
        odd = state & 1
        integers[number] = v = np.where(goal == 0, 0, 2 * np.rint((goal - odd) / 2).astype(np.int64) + odd)
        state = np.where(v == 0, state, NEXT_STATE[state, v >> 1 & 1])
    return (step * integers.astype(np.float32)).reshape(array.shape)


@pytest.mark.parametrize("profile", ["paper", "max"])
def test_the_release_on_a_trellis(release, profile):
    arrays = {name: on_trellis(array) if name.endswith("kernel") else array for name, array in release.items()}
    data = codec.encode(arrays, HEADER, profile=profile)
    start = time.process_time()
    contents = codec.decode(data)
    assert time.process_time() - start < 2  # 0.2 s on a quiet machine
    assert_same(contents.arrays, arrays)
    assert [array.kind for array in codec.describe(data).arrays].count("trellis") == 26
