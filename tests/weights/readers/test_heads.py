"""Heads with other names than conv10, in every format whose layers have names."""

import numpy as np
import pytest

from sqz_keras.weights.readers import WeightsFileError, read_arrays
from sqz_keras.weights.readers.heads import find_head
from tests.weights.readers import test_caffe, test_keras_h5, test_safetensors_file, test_torch_file
from tests.weights.readers.mutations import SHAPES, assert_equal, random_arrays

CHANNELS = SHAPES["conv10/kernel"][2]
TRUNK = {name: array for name, array in random_arrays().items() if not name.startswith("conv10/")}


def head(name, classes=6, kernel=None):
    kernel = np.full((1, 1, CHANNELS, classes), 0.25, np.float32) if kernel is None else kernel
    return {f"{name}/kernel": kernel, f"{name}/bias": np.arange(kernel.shape[-1], dtype=np.float32)}


def torch_state(arrays):
    """As `test_torch_file.state_dict`, but layers that are not SqueezeNet's keep their names."""
    state = {}
    for name, array in arrays.items():
        layer, part = name.split("/")
        theirs = f"{layer}.{'weight' if part == 'kernel' else part}"
        array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        known = layer in ("conv1", "conv10") or layer.startswith("fire")
        state[test_torch_file.theirs(name) if known else theirs] = np.ascontiguousarray(array)
    return state


def dense_transposed(arrays):
    """The arrays with dense kernels as (out, in), the order in Caffe."""
    return {name: array.T if array.ndim == 2 else array for name, array in arrays.items()}


@pytest.fixture(params=["net.caffemodel", "old.caffemodel", "net.h5", "net.weights.h5", "net.pth", "net.safetensors"])
def write(request, tmp_path, monkeypatch):
    """A function that writes arrays into a file of some format and returns its path."""
    writers = {
        "net.caffemodel": lambda arrays: test_caffe.encode(dense_transposed(arrays), rename=str),
        "old.caffemodel": lambda arrays: test_caffe.encode(dense_transposed(arrays), legacy=True, rename=str),
        "net.h5": test_keras_h5.legacy,
        "net.weights.h5": test_keras_h5.keras3,
        "net.pth": lambda arrays: test_torch_file.Writer(monkeypatch).zipped(torch_state(arrays)),
        "net.safetensors": lambda arrays: test_safetensors_file.build(torch_state(arrays)),
    }

    def to_file(arrays):
        path = tmp_path / request.param
        path.write_bytes(writers[request.param](arrays))
        return path

    return to_file


@pytest.mark.filterwarnings("ignore:.* does not say what follows its head:UserWarning")
@pytest.mark.parametrize("name", ["conv10-new", "conv10_ft", "head", "fc"])
def test_the_only_head_is_conv10(write, name):
    path = write(TRUNK | head(name))
    assert_equal(read_arrays(path), TRUNK | head("conv10"))
    assert_equal(read_arrays(path, trunk_only=True), TRUNK)


def test_a_second_head_is_refused_and_does_not_matter_to_the_trunk(write):
    path = write(random_arrays() | head("extra"))
    with pytest.raises(WeightsFileError, match=r"besides conv10 it has another head, 'extra'.*include_top=False"):
        read_arrays(path)
    assert_equal(read_arrays(path, trunk_only=True), random_arrays())
    path = write(TRUNK | head("one") | head("two", 3))
    with pytest.raises(WeightsFileError, match=r"no conv10, and any of '(one', 'two|two', 'one)' could be its head"):
        read_arrays(path)
    assert_equal(read_arrays(path, trunk_only=True), TRUNK)


def test_a_dense_head_is_another_function(write):
    path = write(TRUNK | head("dense", kernel=np.full((CHANNELS, 6), 0.25, np.float32)))
    with pytest.raises(WeightsFileError, match=r"its head 'dense' is a dense layer.*include_top=False"):
        read_arrays(path)
    assert_equal(read_arrays(path, trunk_only=True), TRUNK)
    path = write(random_arrays() | head("dense", kernel=np.full((10, 6), 0.25, np.float32)))
    assert_equal(read_arrays(path, trunk_only=True), random_arrays())


@pytest.mark.parametrize("trunk_only", [False, True])
@pytest.mark.parametrize("shape", [(3, 3, CHANNELS, 6), (1, 1, CHANNELS + 1, 6), (CHANNELS + 1, 6)])
def test_other_layers_are_no_heads(write, shape, trunk_only):
    path = write(TRUNK | head("more", kernel=np.ones(shape, np.float32)))
    with pytest.raises(WeightsFileError, match=r"layer 'more' has weights of shape .*no SqueezeNet has such a layer"):
        read_arrays(path, trunk_only)


def test_a_file_without_fire_modules_has_no_head():
    with pytest.raises(WeightsFileError, match="'x'"):
        find_head("file", {"x": (1, 1, 3, 4)}, {"conv1/kernel": (3, 3, 3, 4)}, True)
    assert find_head("file", {}, {"conv1/kernel": (3, 3, 3, 4)}, True) is None
