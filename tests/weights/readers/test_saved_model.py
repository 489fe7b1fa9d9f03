import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from sqz_keras import resolve_model
from sqz_keras.weights.description import EXTRA_FOLDER, write_spec
from sqz_keras.weights.readers import WeightsFileError, saved_model
from tests.weights.readers.mutations import SPEC, assert_equal, assert_refused, flips, load, random_arrays, truncations

GRAPH = "saved_model.pb"


def export(folder, arrays, prefix=""):
    """Writes a SavedModel with the arrays as constants in a function of its graph."""

    @tf.function(input_signature=[])
    def constants():
        return [tf.constant(array, name=prefix + name) for name, array in arrays.items()]

    shutil.rmtree(folder, ignore_errors=True)
    module = tf.Module()
    module.constants, module.other = constants, tf.Variable(3.0)
    tf.saved_model.save(module, str(folder))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "1"
    export(folder, random_arrays())
    return folder


@pytest.fixture
def folder(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "1")


def test_reads_what_was_exported(folder):
    assert_equal(load(folder), random_arrays())


def test_a_bias_of_a_single_value_is_read(tmp_path):
    arrays = {"conv10/kernel": np.ones((1, 1, 8, 1), np.float32), "conv10/bias": np.full(1, 0.5, np.float32)}
    export(tmp_path / "1", arrays)
    assert_equal(saved_model.read(tmp_path / "1"), arrays)


def test_tensorflow_is_not_needed_and_nothing_else_is_looked_at(folder):
    shutil.rmtree(folder / "variables")
    code = """
import sys
from sqz_keras.weights.readers import read_arrays
print(len(read_arrays(sys.argv[1])), {"tensorflow", "keras"} & set(sys.modules))
"""
    printed = subprocess.check_output([sys.executable, "-c", code, str(folder)], text=True)
    assert printed.strip() == f"{len(random_arrays())} set()"


def test_truncated_files_are_refused(folder):
    for copy in truncations((folder / GRAPH).read_bytes(), 60):
        (folder / GRAPH).write_bytes(copy)
        assert_refused(folder)
    (folder / GRAPH).unlink()
    assert_refused(folder)


def test_random_damage_is_refused_or_noticed_by_the_description(folder):
    (folder / EXTRA_FOLDER).mkdir()
    write_spec(folder / EXTRA_FOLDER / "model", SPEC, random_arrays())
    read = 0
    for copy in flips((folder / GRAPH).read_bytes(), 60, seed=9):
        (folder / GRAPH).write_bytes(copy)
        try:
            _, arrays = resolve_model(folder)
        except WeightsFileError as error:
            assert str(folder) in str(error)
        else:
            read += 1
            assert_equal(arrays, random_arrays())
    assert read < 60


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path, value):
    export(tmp_path / "1", {**random_arrays(), "conv10/bias": np.full(10, value, np.float32)})
    assert_refused(tmp_path / "1")


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("conv1/kernel", np.ones((3, 3, 3, 5), np.float32)),
        ("conv1/kernel", np.ones((3, 3, 3), np.float32)),
        ("conv1/bias", np.ones(4, np.int32)),
        ("conv1/bias", np.ones(4, np.float64)),
        ("conv11/kernel", np.ones((1, 1, 1, 1), np.float32)),
    ],
)
def test_constants_of_other_nets_are_refused(tmp_path, name, array):
    export(tmp_path / "1", {**random_arrays(), name: array})
    assert_refused(tmp_path / "1")


@pytest.mark.parametrize("size", [9, 2**62])
def test_a_shape_that_its_values_do_not_fill_is_refused(folder, size):
    message = saved_model_pb2.SavedModel.FromString((folder / GRAPH).read_bytes())
    for function in message.meta_graphs[0].graph_def.library.function:
        for node in function.node_def:
            if node.name == "conv10/bias":
                node.attr["value"].tensor.tensor_shape.dim[0].size = size
    (folder / GRAPH).write_bytes(message.SerializeToString())
    assert_refused(folder)


def test_models_of_other_projects_are_refused_with_the_remedy(tmp_path):
    export(tmp_path / "1", random_arrays(), prefix="net/")
    with pytest.raises(WeightsFileError, match="Export the model again"):
        saved_model.read(tmp_path / "1")
