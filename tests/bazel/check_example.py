"""What Bazel built of //export:example, its copy and its layer; run by `bazel test //tests/bazel:check_example`."""

import os
import pathlib
import sys
import tarfile

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from export import contract
from sqz_keras import prepare_images, resolve_model
from sqz_keras.models import squeezenet

BUILT = pathlib.Path("export")
TREES = pathlib.Path("tests/bazel/trees.txt").read_text("utf-8").splitlines()


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_base_path_with_the_one_version():
    assert os.listdir(BUILT / "example") == ["3"]


def test_two_builds_are_the_same_to_the_byte():
    built, again = files(BUILT / "example"), files(BUILT / "example_again")
    assert "3/saved_model.pb" in built
    assert [name for name in built.keys() | again.keys() if built.get(name) != again.get(name)] == []


def test_it_answers_as_the_weights_do_and_with_the_labels():
    spec, arrays = resolve_model("tests/bazel/random.sqz")
    served = tf.saved_model.load(os.fspath(BUILT / "example" / "3"))
    images = np.random.default_rng(1).integers(0, 256, (2, 300, 260, 3)).astype(np.float32)
    expected = squeezenet.build(spec, arrays).predict_on_batch(prepare_images(images, spec))
    outputs = served.signatures[contract.SERVING_DEFAULT.name](images=tf.constant(images))
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-5)
    names = [[TREES[index] for index in row] for row in outputs["class_ids"].numpy()]
    assert [[name.decode() for name in row] for row in outputs["classes"].numpy()] == names
    assert resolve_model(BUILT / "example" / "3")[0].labels == tuple(TREES)


def test_the_layer_holds_the_model_and_its_configuration():
    with tarfile.open(BUILT / "example_layer.tar") as layer:
        packed = {member.name: layer.extractfile(member).read() for member in layer if member.isfile()}
    text = packed["models/models.config"].decode()
    (model,) = text_format.Parse(text, model_server_config_pb2.ModelServerConfig()).model_config_list.config
    base_path = model.base_path.lstrip("/")
    expected = {f"{base_path}/{name}": data for name, data in files(BUILT / "example").items()}
    expected |= {f"models/{name}": data for name, data in files(BUILT / "example_config").items()}
    assert len(expected) > 8
    assert packed == expected
    assert list(model.model_version_policy.specific.versions) == [3]
    assert dict(model.version_labels) == {"stable": 3}


def test_no_module_is_one_that_the_build_does_not_declare():
    """Not the environment's own sqz-keras, which `make venv` links to the checkout."""
    ours = [module for name, module in sys.modules.items() if name.split(".")[0] in ("export", "sqz_keras")]
    assert len(ours) > 10
    assert [module for module in ours if not pathlib.Path(module.__file__).is_relative_to(pathlib.Path.cwd())] == []
