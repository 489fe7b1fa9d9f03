"""The files for other runtimes answer as Keras does, and appear whole or not at all."""

import dataclasses
import json
import os

import keras
import numpy as np
import onnx
import pytest
from tensorflow.lite.tools import flatbuffer_utils

from export import export
from export.formats import single_file
from sqz_keras import Metaparameters, ModelSpec, resolve_model
from sqz_keras.architecture.colours import fold_colours
from sqz_keras.compression import int8
from sqz_keras.models import squeezenet
from sqz_keras.runtimes import onnx_file
from sqz_keras.runtimes.run import load_litert, run_litert, run_onnx
from sqz_keras.version import __version__
from sqz_keras.weights import sqz
from sqz_keras.weights.description import check_no_other_spec, write_spec
from tests.export.samples import random_arrays, random_image, small_spec

IMAGES = np.stack([np.asarray(random_image(32, 32, seed=seed), np.float32) for seed in range(4)])


@pytest.fixture(scope="module")
def model_folder(base_path):
    return base_path / "3"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for seed in range(60):
        random_image(50, 40, seed=seed).save(folder / f"{seed}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def answers(spec, arrays, images=IMAGES):
    return single_file.run_keras(squeezenet.build(spec, arrays), spec, images)


@pytest.mark.parametrize("format", ["litert", "litert_float16", "onnx", "keras"])
def test_command(model_folder, tmp_path, spec, arrays, run_command, capsys, format):
    path = tmp_path / f"model{single_file.SUFFIXES[format]}"
    path.write_bytes(b"an older file")
    run_command(export, f"--format={format}", f"--model={model_folder}", f"--output={path}")
    printed = capsys.readouterr().out
    assert printed.startswith(f"{path}: {path.stat().st_size:,} bytes, 10 classes; ")
    assert "of Keras's" in printed
    assert sorted(os.listdir(tmp_path)) == sorted([path.name, "model.spec.json"])
    expected = answers(spec, arrays)
    if format == "keras":
        read_spec, read_arrays = resolve_model(path)
        assert read_spec.labels == spec.labels
        np.testing.assert_array_equal(answers(read_spec, read_arrays), expected)
    elif format == "onnx":
        np.testing.assert_allclose(run_onnx(path.read_bytes(), IMAGES), expected, atol=1e-5)
    else:
        atol = 1e-5 if format == "litert" else 2e-2
        np.testing.assert_allclose(run_litert(path.read_bytes(), IMAGES), expected, atol=atol)
    assert np.ptp(expected, axis=0).max() > 0.01, "the images must differ"
    os.remove(tmp_path / "model.spec.json")
    if format.startswith("litert"):
        assert spec_of_litert(path.read_bytes()) == spec
    else:  # the file says the same without its description beside it
        alone, _ = resolve_model(path)
        assert dataclasses.replace(alone, weights_sha256=None) == spec


def spec_of_litert(data):
    """The ModelSpec in the metadata of a LiteRT file, found with TensorFlow's own reader of the format."""
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(data))
    (entry,) = [entry for entry in model.metadata if entry.name == b"model_spec"]
    spec = ModelSpec.from_json(json.loads(bytes(model.buffers[entry.buffer].data)))
    return dataclasses.replace(spec, weights_sha256=None)


def test_8_bits(model_folder, images, tmp_path, spec, arrays, run_command, capsys):
    path = tmp_path / "model.tflite"
    argv = ("--format=litert_int8", f"--model={model_folder}", f"--calibration_dir={images}")
    run_command(export, *argv, f"--output={path}")
    printed = capsys.readouterr()
    assert "broken.png" in printed.err
    assert "on 30 images that did not calibrate" in printed.out
    assert float(printed.out.partition("agreement=")[2].split()[0]) > 0.8
    interpreter = load_litert(path.read_bytes())
    tensors = [tensor for tensor in interpreter.get_tensor_details() if len(tensor["shape"]) == 4]
    floats = [tensor["shape"].tolist() for tensor in tensors if tensor["dtype"] == np.float32]
    assert len(floats) == 2 and [1, 32, 32, 3] in floats, "the input and the maps that are averaged, and no other"
    eight = [tensor for tensor in tensors if tensor["dtype"] == np.int8]
    first = next(tensor for tensor in eight if tensor["shape"].tolist() == [1, 32, 32, 3])
    np.testing.assert_allclose(first["quantization"], (1, -128), atol=1e-6)  # input bytes stay as they are
    assert np.abs(run_litert(path.read_bytes(), IMAGES) - answers(spec, arrays)).max() < 0.2


@pytest.mark.parametrize("bypass", [None, "simple", "complex"])
def test_weights_for_8_bits_answer_as_before_and_lie_on_the_grid(bypass):
    net = Metaparameters(num_fire_modules=3, base_e=8, incr_e=8, freq=2, stem_filters=4, pool_after=(1,))
    spec = small_spec(metaparameters=net, bypass=bypass)
    arrays = random_arrays(spec)
    images = np.stack([np.asarray(random_image(32, 32, seed=seed), np.float32) for seed in range(10, 50)])
    prepared = int8.prepare(spec, fold_colours(spec, arrays), images)
    model = squeezenet.build(spec, prepared)
    for name in int8.clipped(spec):
        model.get_layer(name).activation = keras.activations.relu6
    after = model.predict_on_batch(IMAGES)
    np.testing.assert_allclose(after, answers(spec, arrays), atol=0.03)
    for name, kernel in prepared.items():
        if name.endswith("/kernel"):
            step = np.abs(kernel).max(axis=(0, 1, 2)) / int8.LEVELS
            np.testing.assert_allclose(kernel / step, np.rint(kernel / step), atol=1e-4)


def test_onnx_is_read_back_with_its_description(spec, arrays, tmp_path):
    single_file.write("onnx", spec, arrays, tmp_path / "net.onnx")
    read_spec, read_arrays = resolve_model(tmp_path / "net.onnx")
    assert read_spec.labels == spec.labels
    for name, array in arrays.items():
        np.testing.assert_array_equal(read_arrays[name], array)
    model = onnx.load(tmp_path / "net.onnx")
    (entry,) = model.metadata_props
    assert json.loads(entry.value)["labels"] == list(spec.labels)
    assert [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [
        "batch",
        32,
        32,
        3,
    ]


def test_what_answers_otherwise_is_not_written(spec, arrays, tmp_path, monkeypatch):
    other = arrays | {"conv10/bias": arrays["conv10/bias"] + np.arange(10, dtype=np.float32)}
    convert = onnx_file.convert
    monkeypatch.setattr(onnx_file, "convert", lambda spec, arrays: convert(spec, other))
    with pytest.raises(ValueError, match="does not answer as Keras does: by onnxruntime"):
        single_file.write("onnx", spec, arrays, tmp_path / "net.onnx")
    assert os.listdir(tmp_path) == []


def test_the_model_itself_is_not_replaced(tmp_path, spec, arrays, run_command):
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_file.convert(spec, arrays))
    with pytest.raises(ValueError, match=r"--output=.* would replace --model: give another name"):
        run_command(export, "--format=onnx", f"--model={path}", f"--output={path}")
    assert path.read_bytes() == onnx_file.convert(spec, arrays)


def test_the_description_of_another_file_is_not_replaced(tmp_path, spec, arrays, run_command):
    other = arrays | {"conv10/bias": arrays["conv10/bias"] + 1}
    description = write_spec(tmp_path / "model.keras", spec, other)
    before = description.read_bytes()
    (tmp_path / "own.sqz").write_bytes(sqz.encode(spec, arrays))
    command = ["--format=onnx", f"--model={tmp_path / 'own.sqz'}", f"--output={tmp_path / 'model.onnx'}"]
    with pytest.raises(ValueError, match=r"model\.spec\.json describes another model"):
        run_command(export, *command)
    assert description.read_bytes() == before
    write_spec(tmp_path / "model.keras", spec, arrays)
    run_command(export, *command)
    assert (tmp_path / "model.onnx").exists()


def test_the_description_that_two_formats_share_is_not_replaced(tmp_path, spec, arrays):
    other = arrays | {"conv10/bias": arrays["conv10/bias"] + 1}
    for name in ("model.onnx", "model.txt"):
        (tmp_path / name).touch()
    write_spec(tmp_path / "model.onnx", spec, other)
    check_no_other_spec(tmp_path / "model.onnx", spec, arrays)
    (tmp_path / "model.tflite").touch()
    with pytest.raises(ValueError, match="describes another model"):
        check_no_other_spec(tmp_path / "model.onnx", spec, arrays)
    path = write_spec(tmp_path / "model.onnx", spec, arrays)
    path.write_text(path.read_text().replace(__version__, "0.0.1"))  # as an earlier release wrote it
    check_no_other_spec(tmp_path / "model.onnx", spec, arrays)


def test_grey_models_are_refused(tmp_path):
    spec = small_spec(channels=1)
    for format in single_file.SUFFIXES:
        with pytest.raises(ValueError, match="3 channels"):
            single_file.write(format, spec, random_arrays(spec), tmp_path / "model")
    assert os.listdir(tmp_path) == []
