"""What is exported can be read back, and appears whole or not at all."""

import dataclasses
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from samples import random_arrays, small_spec

from export import contract, saved_model
from export.saved_model import export_saved_model
from sqz_keras import resolve_model


def test_model_is_read_back(base_path, spec, arrays):
    read_spec, read_arrays = resolve_model(base_path / "3")
    assert dataclasses.replace(read_spec, weights_sha256=None) == spec
    assert list(read_arrays) == list(spec.weight_shapes())
    for name, array in arrays.items():
        np.testing.assert_array_equal(read_arrays[name], array, err_msg=name)


def test_checkpoint_holds_the_weights_and_nothing_else(base_path, arrays):
    names = {name for name, _ in tf.train.list_variables(os.fspath(base_path / "3" / "variables" / "variables"))}
    keys = {f"weights/{name.replace('/', '.S')}/.ATTRIBUTES/VARIABLE_VALUE" for name in arrays}
    assert names == keys | {"_CHECKPOINTABLE_OBJECT_GRAPH"}


def test_labels_are_an_asset(base_path, spec):
    path = base_path / "3" / "assets" / contract.LABELS_NAME
    assert tuple(path.read_text("utf-8").splitlines()) == spec.labels


def test_refusals_come_before_anything_is_written(tmp_path, spec, arrays):
    with pytest.raises(ValueError, match="RGB"):
        grey = small_spec(channels=1)
        export_saved_model(grey, random_arrays(grey), tmp_path / "new")
    with pytest.raises(ValueError, match="one line"):
        export_saved_model(small_spec(labels=tuple(f"a\n{index}" for index in range(10))), arrays, tmp_path / "new")
    with pytest.raises(ValueError, match="missing"):
        export_saved_model(spec, {"conv1/kernel": arrays["conv1/kernel"]}, tmp_path / "new")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        with pytest.raises(ValueError, match="float32"):
            export_saved_model(spec, arrays, tmp_path / "new")
    finally:
        keras.config.set_dtype_policy("float32")
    assert os.listdir(tmp_path) == []


def test_failing_to_write_leaves_nothing(tmp_path, spec, arrays, monkeypatch):
    def fail(*_, **__):
        raise OSError("the disk is full")

    monkeypatch.setattr("sqz_keras.weights.write_spec", fail)
    with pytest.raises(OSError, match="disk is full"):
        export_saved_model(spec, arrays, tmp_path)
    assert os.listdir(tmp_path) == []


def test_command(base_path, tmp_path, run_command, capsys):
    # An exported model is a model too, so it can be exported again.
    for _ in range(2):
        run_command(saved_model, f"--model={base_path / '3'}", f"--base_path={tmp_path}")
    assert sorted(os.listdir(tmp_path)) == ["1", "2"]
    assert capsys.readouterr().out.startswith(f"{tmp_path / '1'}: ")
    with pytest.raises(ValueError, match="never overwritten"):
        run_command(saved_model, "--model=no such model", f"--base_path={tmp_path}", "--model_version=2")
