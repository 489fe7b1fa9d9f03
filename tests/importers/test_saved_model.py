import shutil

import numpy as np
import pytest
import tensorflow as tf

from sqz_keras.importers import WeightsFileError, saved_model

from .mutations import assert_equal, assert_refused, flips, load, random_arrays, truncations

DATA = "variables/variables.data-00000-of-00001"
INDEX = "variables/variables.index"


def export(folder, arrays, attribute="weights"):
    shutil.rmtree(folder, ignore_errors=True)
    module = tf.Module()
    setattr(module, attribute, {name: tf.Variable(array, name=name) for name, array in arrays.items()})
    module.other = tf.Variable(3.0)
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


def test_the_graph_is_not_looked_at(folder):
    (folder / "saved_model.pb").write_bytes(b"not a graph")
    assert_equal(load(folder), random_arrays())


@pytest.mark.parametrize("name", [DATA, INDEX])
def test_truncated_files_are_refused(folder, name):
    data = (folder / name).read_bytes()
    copies = truncations(data, 60)
    for copy in copies:
        (folder / name).write_bytes(copy)
        assert_refused(folder)
    (folder / name).unlink()
    assert_refused(folder)


@pytest.mark.parametrize("name", [DATA, INDEX])
def test_random_damage_is_refused_or_changes_nothing_that_is_read(folder, name):
    for copy in flips((folder / name).read_bytes(), 100, seed=9):
        (folder / name).write_bytes(copy)
        try:
            arrays = load(folder)
        except WeightsFileError as error:
            assert str(folder) in str(error)
        else:
            assert_equal(arrays, random_arrays())


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
        ("conv11/kernel", np.ones((1, 1, 1, 1), np.float32)),
        ("conv1/gamma", np.ones(4, np.float32)),
        ("step", np.ones((), np.float32)),
    ],
)
def test_variables_of_other_nets_are_refused(tmp_path, name, array):
    export(tmp_path / "1", {**random_arrays(), name: array})
    assert_refused(tmp_path / "1")


def test_models_of_other_projects_are_refused_with_the_remedy(tmp_path):
    export(tmp_path / "1", random_arrays(), attribute="layers")
    with pytest.raises(WeightsFileError, match="Export the model again"):
        saved_model.read(tmp_path / "1")
