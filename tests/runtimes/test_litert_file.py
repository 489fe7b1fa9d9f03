"""LiteRT files written from the arrays answer as Keras does, and as the files of TensorFlow's converter."""

import dataclasses
import json

import numpy as np
import pytest
from tensorflow.lite.python import schema_py_generated as schema

from sqz_keras import ModelSpec
from sqz_keras.architecture.colours import COLOURS, fold_colours
from sqz_keras.models import squeezenet
from sqz_keras.runtimes import litert_file
from sqz_keras.runtimes.run import load_litert, run_litert
from tests.export.samples import random_arrays, small_spec
from tests.runtimes.nets import SIX, coloured_net, keras_answers, odd_net, paper_net, random_images, telling_arrays


def check_answers(spec):
    arrays, images = telling_arrays(spec), random_images(spec)
    data = litert_file.convert(spec, arrays)
    np.testing.assert_allclose(run_litert(data, images), keras_answers(spec, arrays, images), atol=1e-5)


@pytest.mark.parametrize(("version", "bypass"), SIX)
def test_the_six_nets(version, bypass):
    check_answers(paper_net(version, bypass))


@pytest.mark.parametrize("size", [31, 32, 33, 34])
@pytest.mark.parametrize(("bypass", "padding"), [(None, 1), ("simple", 0), ("complex", 2)])
def test_every_size_and_bypass(size, bypass, padding):
    """Covers pools in ceil mode, sums, and conv10's padding."""
    check_answers(odd_net(bypass, padding, size))


@pytest.mark.parametrize("mode", list(COLOURS))
def test_colours_are_part_of_the_file(mode):
    check_answers(coloured_net(mode))


def test_float16_has_the_rounded_kernels():
    spec = paper_net("1.0", None)
    arrays, images = telling_arrays(spec), random_images(spec)
    rounded = {
        name: array.astype(np.float16).astype(np.float32) if name.endswith("kernel") else array
        for name, array in fold_colours(spec, arrays).items()
    }
    data = litert_file.convert(spec, arrays, float16=True)
    expected = squeezenet.build(spec, rounded).predict_on_batch(images)
    np.testing.assert_allclose(run_litert(data, images), expected, atol=1e-5)
    assert len(data) < 0.51 * len(litert_file.convert(spec, arrays))


def test_float16_refuses_what_it_cannot_hold():
    spec = small_spec()
    arrays = random_arrays(spec)
    arrays["conv10/kernel"][0, 0, 0, 0] = 7e4
    with pytest.raises(ValueError, match="conv10/kernel has values beyond float16's 65504"):
        litert_file.convert(spec, arrays, float16=True)


def test_grey_models_are_refused():
    spec = small_spec(channels=1)
    with pytest.raises(ValueError, match="3 channels; this model takes 1"):
        litert_file.convert(spec, random_arrays(spec))


def interpreters():
    tf = pytest.importorskip("tensorflow")
    yield tf.lite.Interpreter
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ModuleNotFoundError:
        return
    yield Interpreter


def test_the_converter_of_tensorflow_writes_a_file_of_the_same_use():
    """Both files have the same names, types, shapes and signatures, and give the same answers in each interpreter."""
    import tensorflow as tf

    from export.formats.litert_int8 import quiet

    spec = paper_net("1.1", "complex")
    arrays, images = telling_arrays(spec), random_images(spec)
    with quiet():
        model = squeezenet.build(spec, fold_colours(spec, arrays))
        converted = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    for interpreter_class in interpreters():
        described, answers = [], []
        for data in (converted, litert_file.convert(spec, arrays)):
            interpreter = interpreter_class(model_content=data)
            details = [*interpreter.get_input_details(), *interpreter.get_output_details()]
            interpreter.resize_tensor_input(details[0]["index"], images.shape)
            described.append(
                [
                    (detail["name"], detail["dtype"], detail["shape"].tolist(), detail["shape_signature"].tolist())
                    for detail in details
                ]
                + [interpreter.get_signature_list()]
            )
            interpreter.allocate_tensors()
            interpreter.set_tensor(details[0]["index"], images)
            interpreter.invoke()
            answers.append(interpreter.get_tensor(details[1]["index"]))
        assert described[0] == described[1]
        np.testing.assert_allclose(*answers, atol=1e-6)
        np.testing.assert_allclose(run_litert(converted, images), answers[1], atol=1e-5)


def test_the_schema_reads_back_what_was_written():
    """TensorFlow's classes for the schema read back the fields that were written, and the ModelSpec in the metadata."""
    spec = small_spec(conv10_padding=1)
    arrays = random_arrays(spec)
    data = litert_file.convert(spec, arrays)
    assert data == litert_file.convert(spec, arrays), "the same model gives the same bytes"
    assert data[4:8] == b"TFL3"
    model = schema.ModelT.InitFromPackedBuf(data)
    assert (model.version, model.description) == (3, b"sqz-keras")
    (graph,), operations = model.subgraphs, vars(schema.BuiltinOperator)
    names = {number: name for name, number in operations.items() if isinstance(number, int)}
    used = [names[model.operatorCodes[operator.opcodeIndex].builtinCode] for operator in graph.operators]
    assert used.count("CONV_2D") == 8 and set(used) == {
        "CONV_2D", "MAX_POOL_2D", "CONCATENATION", "PAD", "MEAN", "SOFTMAX"
    }  # fmt: skip
    tensors = {tensor.name.decode(): tensor for tensor in graph.tensors}
    kernel = model.buffers[tensors["conv10/kernel"].buffer].data.view(np.float32)
    shape = tensors["conv10/kernel"].shape
    np.testing.assert_array_equal(kernel.reshape(shape).transpose(1, 2, 3, 0), arrays["conv10/kernel"])
    (entry,) = [entry for entry in model.metadata if entry.name == b"model_spec"]
    read = ModelSpec.from_json(json.loads(bytes(model.buffers[entry.buffer].data)))
    assert read == dataclasses.replace(spec, weights_sha256=None)


def test_weights_lie_where_runtimes_can_use_them():
    """The schema asks for an alignment of 16 bytes."""
    spec = small_spec()
    arrays = random_arrays(spec)
    data = litert_file.convert(spec, arrays)
    for name, array in arrays.items():
        if name != "conv1/kernel" and name.endswith("/kernel"):
            assert data.index(np.transpose(array, (3, 0, 1, 2)).tobytes()) % 16 == 0


def test_an_interpreter_is_ready_at_once():
    interpreter = load_litert(litert_file.convert(small_spec(), random_arrays(small_spec())))
    assert interpreter.get_input_details()[0]["shape"].tolist() == [1, 32, 32, 3]
