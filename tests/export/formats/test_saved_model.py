"""An exported model can be read back, and appears whole or not at all."""

import dataclasses
import os
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import fingerprint_pb2
from tensorflow.python.saved_model import fingerprinting_utils

from export import contract, export
from export.formats import reproducible
from export.formats.saved_model import export_saved_model
from sqz_keras import resolve_model
from tests.export.samples import random_arrays, small_spec


def tree(folder):
    """The bytes of every file in a folder, by relative path."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_model_is_read_back(base_path, spec, arrays):
    read_spec, read_arrays = resolve_model(base_path / "3")
    assert dataclasses.replace(read_spec, weights_sha256=None) == spec
    assert list(read_arrays) == list(spec.weight_shapes())
    for name, array in arrays.items():
        np.testing.assert_array_equal(read_arrays[name], array, err_msg=name)


def test_weights_are_in_the_graph_alone(base_path):
    names = {name for name, _ in tf.train.list_variables(os.fspath(base_path / "3" / "variables" / "variables"))}
    assert names == {"_CHECKPOINTABLE_OBJECT_GRAPH"}


def test_labels_are_an_asset(base_path, spec):
    path = base_path / "3" / "assets" / contract.LABELS_NAME
    assert tuple(path.read_text("utf-8").splitlines()) == spec.labels


def test_refusals_come_before_anything_is_written(tmp_path, spec, arrays):
    with pytest.raises(ValueError, match="RGB"):
        grey = small_spec(channels=1)
        export_saved_model(grey, random_arrays(grey), tmp_path / "new")
    with pytest.raises(ValueError, match="missing"):
        export_saved_model(spec, {"conv1/kernel": arrays["conv1/kernel"]}, tmp_path / "new")
    assert os.listdir(tmp_path) == []


@pytest.fixture
def other_settings():
    """This process has traced another graph, and has other Keras settings, while the test runs."""
    tf.function(lambda x: x + 1)(1.0)
    keras.config.set_dtype_policy("mixed_bfloat16")
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_dtype_policy("float32")
    keras.config.set_image_data_format("channels_last")


def test_fingerprint_is_of_what_is_there(base_path):
    """If fingerprint.pb is missing, the singleprint is computed from saved_model.pb, so both must agree."""
    folder = base_path / "3"
    recorded = tf.saved_model.experimental.read_fingerprint(os.fspath(folder)).singleprint()
    assert recorded == fingerprinting_utils.singleprint_from_saved_model_proto(os.fspath(folder))
    fingerprint = fingerprint_pb2.FingerprintDef.FromString((folder / "fingerprint.pb").read_bytes())
    assert fingerprint.uuid.isdigit()


def test_a_folder_without_its_description_is_described_by_its_graph(base_path, spec, arrays, tmp_path):
    shutil.copytree(base_path / "3", tmp_path / "3", ignore=shutil.ignore_patterns("assets.extra"))
    assert not (tmp_path / "3" / "assets.extra").exists()
    read, weights = resolve_model(tmp_path / "3")
    assert dataclasses.replace(read, weights_sha256=None) == spec
    for name, array in arrays.items():
        np.testing.assert_array_equal(weights[name], array)


@pytest.mark.large
def test_command(base_path, other_settings, tmp_path, run_command, capsys):
    """An exported model is a model too: exported again, it has the same bytes, whatever this process has done."""
    (tmp_path / "1").mkdir()
    run_command(export, f"--model={base_path / '3'}", f"--base_path={tmp_path}", "--keep_versions=1")
    assert os.listdir(tmp_path) == ["2"]
    assert capsys.readouterr().out.startswith(f"{tmp_path / '2'}: ")
    assert tree(tmp_path / "2") == tree(base_path / "3")
    with pytest.raises(ValueError, match="never overwritten"):
        run_command(export, "--model=no such model", f"--base_path={tmp_path}", "--model_version=2")
    with pytest.raises(ValueError, match="newer ones"):
        keep = ("--model_version=1", "--keep_versions=1")
        run_command(export, "--model=no such model", f"--base_path={tmp_path}", *keep)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "needs --base_path"),
        (["--base_path="], "needs --base_path"),
        (["--base_path=x", "--output=y"], "takes no --output"),
        (["--base_path=x", "--calibration_dir=y"], "takes no --calibration_dir"),
        (["--format=onnx"], "needs --output"),
        (["--format=onnx", "--output=x.onnx", "--model_version=1"], "takes no --model_version"),
        (["--format=keras", "--output=x.keras", "--keep_versions=1"], "takes no --keep_versions"),
        (["--format=litert", "--output=x.tflite", "--base_path=y", "--calibration_dir=z"], "no --base_path, --cal"),
        (["--format=litert_int8", "--output=x.tflite"], "needs --calibration_dir"),
        (["--format=litert", "--output=x.onnx"], r"end in \.tflite"),
        (["--format=keras", "--output=no such folder/x.keras"], "existing folder"),
        (["--format=litert_int8", "--output=x.tflite", "--calibration_dir=no such"], "not a folder"),
        (["--verify=x", "--base_path=y"], "--verify takes no --base_path"),
        (["--verify=x", "--format=onnx", "--model=y"], "--verify takes no --format, --model"),
        (["--verify="], "needs --verify"),
    ],
)
def test_contradictions_are_refused_before_any_work(run_command, tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        run_command(export, *argv)
    assert os.listdir(tmp_path) == []


def test_of_two_exports_at_once_with_auto_both_end(spec, arrays, tmp_path, monkeypatch):
    monkeypatch.setattr(reproducible, "write_saved_model", lambda *_: (tmp_path / "1" / "other").mkdir(parents=True))
    assert export_saved_model(spec, arrays, tmp_path) == tmp_path / "2"
    monkeypatch.setattr(reproducible, "write_saved_model", lambda *_: (tmp_path / "3" / "other").mkdir(parents=True))
    with pytest.raises(ValueError, match="never overwritten"):
        export_saved_model(spec, arrays, tmp_path, 3)
