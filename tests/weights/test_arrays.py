import os
import re

import numpy as np
import pytest

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.weights.arrays import MAX_BYTES, check_declared, file_size, float32_arrays, plain_net_layers
from sqz_keras.weights.readers import READERS, WeightsFileError, check_shapes, read_arrays
from tests.weights.readers.mutations import SHAPES, random_arrays


@pytest.mark.parametrize("name", ["weights.dat", "weights", "folder"])
def test_unknown_kinds_are_refused_with_a_list_of_the_known(tmp_path, name):
    path = tmp_path / name
    path.mkdir() if name == "folder" else path.write_bytes(b"x")
    with pytest.raises(WeightsFileError) as error:
        read_arrays(path)
    assert all(kind in str(error.value) for kind in READERS)
    if name == "folder":
        (path / "config.json").touch()
        (path / "model.safetensors").touch()
        with pytest.raises(WeightsFileError, match=r"One in this folder is 'model\.safetensors': give its path\."):
            read_arrays(path)


@pytest.mark.parametrize("suffix", [kind for kind in READERS if kind.startswith(".")])
def test_every_reader_refuses_missing_empty_and_huge_files(tmp_path, suffix):
    path = tmp_path / f"net{suffix}"
    with pytest.raises(WeightsFileError, match="got nothing"):
        read_arrays(path)
    path.write_bytes(b"")
    with pytest.raises(WeightsFileError, match=path.name):
        read_arrays(path)
    path.touch()
    os.truncate(path, MAX_BYTES + 1)  # sparse: takes no space
    with pytest.raises(WeightsFileError, match=f"at most {MAX_BYTES}"):
        read_arrays(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "a pointer of Git LFS, .*: git lfs pull"),
        (b"\n<!DOCTYPE html>\n<html lang=en>", "a web page, or .* Download it again by the link to the file"),
        (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied', "a web page, or a server's error, .* Download it again"),
    ],
)
@pytest.mark.parametrize("suffix", [kind for kind in READERS if kind.startswith(".")])
def test_every_reader_says_how_to_fetch_the_file_itself(tmp_path, suffix, content, message):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsFileError, match=re.escape(f"{path}: ") + message):
        read_arrays(path)


def test_suffixes_are_read_in_any_case(tmp_path):
    (tmp_path / "NET.ONNX").write_bytes(b"\0")
    with pytest.raises(WeightsFileError, match="number 0"):
        read_arrays(tmp_path / "NET.ONNX")


def test_check_shapes_says_what_does_not_fit():
    arrays = random_arrays()
    check_shapes("file", arrays, SHAPES)
    del arrays["conv1/bias"]
    arrays["fire3_bypass1x1/bias"] = np.zeros(3, np.float32)
    arrays["conv10/kernel"] = np.zeros((1, 1, 2, 10), np.float32)
    with pytest.raises(WeightsFileError) as error:
        check_shapes("file", arrays, SHAPES)
    for part in (
        "file:",
        "1 missing (conv1/bias)",
        "fire3_bypass1x1/bias",
        "(1, 1, 2, 10) in the file",
        "Build the net",
    ):
        assert part in str(error.value)


def test_arrays_come_out_in_net_order_as_float32():
    shapes = ModelSpec(version="1.1", bypass="complex").weight_shapes()
    shuffled = {name: np.ones(shapes[name], np.float16) for name in sorted(shapes, reverse=True)}
    arrays = float32_arrays("file", shuffled)
    assert list(arrays) == list(shapes)
    assert {array.dtype.name for array in arrays.values()} == {"float32"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv1/bias": np.array([1, np.nan, 2, 3], "f4")}, "conv1/bias holds NaN"),
        ({"conv1/bias": np.array([1, np.inf, 2, 3], "f2")}, "conv1/bias holds NaN"),
        ({"conv1/bias": np.array([1, 1e39, 2, 3], "f8")}, "conv1/bias holds NaN, infinite or too large"),
        ({"conv1/bias": np.zeros(4, "i4")}, "conv1/bias must be floating point, got int32"),
        ({"conv1/bias": np.zeros(5, "f4")}, "conv1 has 4 filters but 5 biases"),
        ({"conv1/bias": np.zeros((1, 4), "f4")}, "conv1/bias must have 1 dimensions"),
        ({"fire11_bypass1x1/bias": np.zeros(4, "f4")}, "fire11_bypass1x1 must have a kernel and a bias"),
        ({"conv2/bias": np.zeros(4, "f4")}, "'conv2/bias' is not the name"),
    ],
)
def test_arrays_that_no_net_has_are_refused(change, message):
    with pytest.raises(WeightsFileError, match=f"file: {message}"):
        float32_arrays("file", {**random_arrays(), **change})


def test_declared_sizes_are_bounded_over_all_arrays():
    check_declared("file", {"a": (MAX_BYTES // 8,), "b": (MAX_BYTES // 8,)})
    for shapes in (
        {"a": (MAX_BYTES // 8,), "b": (MAX_BYTES // 8 + 1,)},
        {"a": (2**40, 2**40)},
        {"a": (0, 3)},
        {"a": (-1,)},
    ):
        with pytest.raises(WeightsFileError):
            check_declared("file", shapes)


def test_plain_nets_have_their_layers_by_number():
    assert plain_net_layers("file", 26) == [name.split("/")[0] for name in SHAPES if name.endswith("/kernel")]
    for count in (0, 2, 4, 25, 27):
        with pytest.raises(WeightsFileError, match=f"got {count}"):
            plain_net_layers("file", count)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(WeightsFileError, match="got a folder"):
        file_size(tmp_path)
