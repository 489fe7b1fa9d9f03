"""Builders, importers and commands on each Keras backend, alone in its environment, answer as on TensorFlow."""

import importlib.util
import json
import re
import shutil

import numpy as np
import pytest

from sqz_keras import codec
from sqz_keras.models.squeezenet import build
from sqz_keras.runtimes import onnx_file
from sqz_keras.weights import download, records, sqz
from sqz_keras.weights.description import write_spec
from tests import environments
from tests.models.answers import BUILDERS, NETS
from tests.models.commands import PHOTOS
from tests.weights.readers import (
    mutations,
    test_caffe,
    test_npy_folder,
    test_safetensors_file,
    test_saved_model,
    test_torch_file,
)

pytestmark = pytest.mark.large
BACKENDS = ("tensorflow", "jax", "torch", "openvino")
# Keras lets OpenVINO compute in bfloat16 on processors that have it.
TOLERANCES = {"openvino": 0.05}


def write_sqz(path, spec):
    """Writes a network whose weights keep activations at about the scale of the inputs; returns the weights."""
    random = np.random.default_rng(0)
    arrays = {}
    for name, shape in spec.weight_shapes().items():
        scale = np.sqrt(2 / np.prod(shape[:-1])) if name.endswith("/kernel") else 0.1
        arrays[name] = random.normal(0, scale, shape).astype(np.float32)
    path.write_bytes(codec.encode(arrays, sqz.header(spec, arrays, {"stages": []}), profile="paper"))
    return arrays


def write_importers(folder, v1_1, monkeypatch):
    """Writes a file or folder of every kind that is read, except `.net`, which the record of "imagenet" covers."""
    folder.mkdir()
    spec, arrays = mutations.SPEC, mutations.random_arrays()
    model = build(spec, arrays)
    model.save(folder / "net.keras")
    model.save(folder / "net.h5")
    model.save_weights(folder / "net.weights.h5")
    (folder / "net.sqz").write_bytes(codec.encode(arrays, sqz.header(spec, arrays, {"stages": []})))
    (folder / "net.onnx").write_bytes(onnx_file.convert(spec, arrays))
    (folder / "net.caffemodel").write_bytes(test_caffe.encode(arrays))
    state = test_torch_file.state_dict(arrays)
    (folder / "net.safetensors").write_bytes(test_safetensors_file.build(state))
    (folder / "net.pth").write_bytes(test_torch_file.Writer(monkeypatch).zipped(state))
    write_spec(folder / "net.weights.h5", spec, arrays)  # one spec for all files of the net
    test_npy_folder.write(folder / "npy", v1_1)
    test_saved_model.export(folder / "saved_model", v1_1)


@pytest.fixture(scope="module")
def folder(test_data, tmp_path_factory):
    """A folder with what `tests.models.answers` and the commands read."""
    folder = tmp_path_factory.mktemp("answers")
    np.save(folder / "inputs.npy", np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32))
    for name, spec in NETS.items():
        write_sqz(folder / f"net{name}.sqz", spec)
    arrays = {name: write_sqz(folder / f"{name}.sqz", spec) for name, (_, spec) in BUILDERS.items()}
    with pytest.MonkeyPatch.context() as monkeypatch:
        write_importers(folder / "importers", arrays["v1_1"], monkeypatch)
    (folder / "photos").mkdir()
    for name in PHOTOS:
        shutil.copy(test_data / "images" / "imagenet_sample" / name, folder / "photos")
    record = records.get_record("squeezenet1.0_deep_compression")
    cached = folder / "home" / download.cache_path(record).relative_to(download.cache_path(record).parents[2])
    cached.parent.mkdir(parents=True)
    shutil.copy(test_data / "weights" / "deep_compression" / record.filename, cached)
    return folder


@pytest.fixture(scope="module")
def ask(folder):
    """A function that gives a backend's answers and what its commands print."""

    def ask(backend):
        others = set(BACKENDS) - {backend}
        packages = environments.make(folder / f"packages_{backend}", without={*others, f"{backend}_cpu"})

        def run(*arguments, chosen=""):
            # On CPUs only oneDNN's kernels support channels first; without AVX-512, TensorFlow leaves them off.
            env = {"KERAS_HOME": str(folder / "home"), "KERAS_BACKEND": chosen, "TF_ENABLE_ONEDNN_OPTS": "1"}
            result = environments.run(packages, *arguments, env=env, cwd=folder)
            assert result.returncode == 0, result.stderr
            return result.stdout

        run("-m", "tests.models.answers", folder, chosen=backend)
        printed = run("-m", "tests.models.commands", folder)  # finds the backend that is installed
        return dict(np.load(folder / f"{backend}.npz")), json.loads(printed)

    return ask


@pytest.fixture(scope="module")
def expected(ask):
    return ask("tensorflow")


def scores(printed):
    """The names that sqz-classify prints, and their probabilities in percent."""
    return re.findall(r"  [\d.]+%  (.+)", printed), [float(score) for score in re.findall(r"([\d.]+)%", printed)]


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_the_answers_of_tensorflow(expected, ask, folder, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    (theirs, their_lines), (answers, lines) = expected, ask(backend)
    assert answers.keys() == theirs.keys()
    for name, answer in answers.items():
        assert np.abs(theirs[name]).max() > 0.05
        largest = max(1.0, float(np.abs(theirs[name]).max()))  # 1 for probabilities
        exact = name.startswith("importer")
        # Resized images, in levels of 0..255, may differ by 0.005.
        tolerance = 0 if exact else 0.005 if name == "prepared" else largest * TOLERANCES.get(backend, 1e-5)
        np.testing.assert_allclose(answer, theirs[name], rtol=0, atol=tolerance, err_msg=name)
    for name in ("summary", "inspect"):
        assert lines[name] == their_lines[name]
    (names, percents), (their_names, their_percents) = scores(lines["classify"]), scores(their_lines["classify"])
    assert names[::5] == their_names[::5] and len(names) == 10
    if backend not in TOLERANCES:
        assert names == their_names
        np.testing.assert_allclose(percents, their_percents, atol=0.011)
    assert lines["evaluate"].splitlines()[1:] == their_lines["evaluate"].splitlines()[1:]  # the first says how fast
    for name in ("lossless", "kmeans"):
        ours, of_theirs = (folder / f"of_{of}" / f"{name}.sqz" for of in (backend, "tensorflow"))
        assert ours.read_bytes() == of_theirs.read_bytes()
    agreement, their_agreement = (
        json.loads((folder / f"of_{of}" / "kmeans.json").read_text("utf-8"))["after"] for of in (backend, "tensorflow")
    )
    assert agreement == their_agreement and agreement["num_images"] == len(PHOTOS)
