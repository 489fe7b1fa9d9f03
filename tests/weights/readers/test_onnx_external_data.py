"""Weights in files beside the ONNX file, which PyTorch's exporter writes unless it is told otherwise."""

import os

import numpy as np
import onnx
import pytest

from sqz_keras.weights.readers import WeightsFileError, read_arrays
from sqz_keras.weights.readers.onnx_structure import external_data
from tests.weights.readers.mutations import assert_equal, random_arrays
from tests.weights.readers.onnx_nets import STYLES, build

FILE_NAME = "net.onnx"


def write(path, location="net.onnx.data", style="pytorch dynamo", **options):
    """A network whose weights are in other files; returns the weights."""
    arrays = {name: np.round(array * 8) / 8 for name, array in random_arrays().items()}
    options = {"save_as_external_data": True, "location": location, "size_threshold": 0} | options
    onnx.save_model(build(arrays, **STYLES[style]), path, **options)
    return arrays


@pytest.mark.parametrize("style", ["pytorch dynamo", "constant nodes", "float16 with casts"])
@pytest.mark.parametrize("files", ["one", "one for each tensor", "large tensors only"])
def test_weights_may_be_in_files_beside_the_model(path, style, files):
    options = {
        "one": {},
        "one for each tensor": {"all_tensors_to_one_file": False},
        "large tensors only": {"size_threshold": 100},
    }
    arrays = write(path, style=style, convert_attribute=True, **options[files])
    inside = onnx.load(path, load_external_data=False)
    assert any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in external_data._tensors(inside.graph))
    assert_equal(read_arrays(path), arrays)


def test_the_path_may_be_relative(path, monkeypatch):
    arrays = write(path)
    monkeypatch.chdir(path.parent)
    assert_equal(read_arrays(path.name), arrays)


def test_both_files_may_be_links_to_one_folder(path, tmp_path):
    """As in the cache of huggingface_hub, or in a sandbox of Bazel."""
    arrays = write(path)
    (tmp_path / "links").mkdir()
    for name in ("net.onnx", "net.onnx.data"):
        (tmp_path / "links" / name).symlink_to(tmp_path / name)
    assert_equal(read_arrays(tmp_path / "links" / "net.onnx"), arrays)


def entry(key, value):
    """An edit of the first weights' place in the other file."""

    def edit(path):
        model = onnx.load(path, load_external_data=False)
        entries = model.graph.initializer[0].external_data
        kept = [(old.key, old.value) for old in entries if old.key != key]
        del entries[:]
        for name, text in [*kept, *([] if value is None else [(key, value)])]:
            entries.add(key=name, value=text)
        path.write_bytes(model.SerializeToString())

    return edit


def twice(path):
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data.add(key="offset", value="8")
    path.write_bytes(model.SerializeToString())


def cut(path):
    data = path.with_name("net.onnx.data")
    data.write_bytes(data.read_bytes()[:-1])


def link(path):
    """Another folder's file, under the right name."""
    data, other = path.with_name("net.onnx.data"), path.with_name("other")
    other.mkdir()
    data.rename(other / "data")
    data.symlink_to(other / "data")


DAMAGE = {
    "missing": (lambda path: path.with_name("net.onnx.data").unlink(), "which is not beside the model"),
    "shorter": (cut, "which ends before it does"),
    "a link": (link, "which is not beside the model"),
    "an absolute path": (entry("location", "/etc/hostname"), "which is not beside the model"),
    "a folder above": (entry("location", "../net.onnx.data"), "which is not beside the model"),
    "a folder": (entry("location", ".."), "which is not beside the model"),
    "a device": (entry("location", "/dev/zero"), "which is not beside the model"),
    "no location": (entry("location", None), "in another file is malformed"),
    "a negative offset": (entry("offset", "-4"), "in another file is malformed"),
    "no number": (entry("length", "1e3"), "in another file is malformed"),
    "two offsets": (twice, "in another file is malformed"),
    "beyond the end": (entry("offset", str(1 << 62)), "which ends before it does"),
    "too much": (entry("length", str(1 << 62)), "at most 268435456 bytes of them are read"),
    "another length": (entry("length", "100"), "of shape .* has 25 values"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_not_beside_the_model_or_malformed_is_refused(path, damage):
    write(path)
    change, message = DAMAGE[damage]
    change(path)
    with pytest.raises(WeightsFileError, match=message):
        read_arrays(path)


def test_all_files_together_are_bounded(path, monkeypatch):
    arrays = write(path)
    monkeypatch.setattr(external_data, "MAX_BYTES", sum(array.nbytes for array in arrays.values()))
    assert_equal(read_arrays(path), arrays)
    monkeypatch.setattr(external_data, "MAX_BYTES", os.path.getsize(path.with_name("net.onnx.data")) - 1)
    with pytest.raises(WeightsFileError, match="its other files hold too much"):
        read_arrays(path)
