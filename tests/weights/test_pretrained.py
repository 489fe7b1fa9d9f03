"""The pretrained weights against golden outputs, and against onnxruntime on real images."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import sqz_keras
from sqz_keras import ModelSpec, Preprocessing, SqueezeNet, SqueezeNetV1_1, prepare_images
from sqz_keras.architecture.spec import hash_arrays
from sqz_keras.images.files import read_image


@pytest.fixture(scope="module")
def onnx_path(test_data):
    return test_data / "weights" / "squeezenet1.1_authors" / "SqueezeNet_fp16.onnx"


@pytest.fixture(scope="module")
def images(test_data):
    paths = sorted((test_data / "images" / "imagenet_sample").iterdir())
    assert len(paths) == 200
    return [read_image(path) for path in paths]


def test_decoded_weights_are_the_records(test_data):
    for folder, file in [
        ("squeezenet1.0_deep_compression", "deep_compression/compressed_SqueezeNet.net"),
        ("squeezenet1.1_authors", "squeezenet1.1_authors/SqueezeNet_fp16.onnx"),
        ("squeezenet1.1_gluon", "squeezenet1.1_gluon"),
    ]:
        spec, arrays = sqz_keras.resolve_model(test_data / "weights" / file)
        assert spec == sqz_keras.get_record(folder).spec
        assert hash_arrays(arrays) == spec.weights_sha256


def test_golden_outputs_of_the_gluon_net(test_data):
    folder = test_data / "weights" / "squeezenet1.1_gluon"
    model = SqueezeNetV1_1(weights=folder, input_shape=(224, 224, 3), classifier_activation=None)
    for case in ("0", "1", "2"):
        inputs = np.load(folder / "golden" / case / "input_0.npy").transpose(0, 2, 3, 1)
        np.testing.assert_allclose(model(inputs), np.load(folder / "golden" / case / "output_0.npy"), rtol=0, atol=5e-4)


def test_pad_of_the_released_v1_0(test_data):
    path = test_data / "weights" / "deep_compression" / "compressed_SqueezeNet.net"
    assert SqueezeNet(weights=path).get_layer("conv10").output.shape == (None, 15, 15, 1000)
    assert SqueezeNet(weights=path, conv10_padding=0).get_layer("conv10").output.shape == (None, 13, 13, 1000)
    assert SqueezeNet(weights=None).get_layer("conv10").output.shape == (None, 13, 13, 1000)


def test_the_trunk_of_pretrained_weights(test_data):
    path = test_data / "weights" / "deep_compression" / "compressed_SqueezeNet.net"
    trunk = SqueezeNet(weights=path, include_top=False, pooling="avg", input_shape=(64, 64, 3))
    whole = SqueezeNet(weights=path)
    np.testing.assert_array_equal(trunk.get_layer("conv1").kernel, whole.get_layer("conv1").kernel)
    assert trunk.output.shape == (None, 512)
    with pytest.raises(ValueError, match="have 1000 classes, got classes=10"):
        SqueezeNet(weights=path, classes=10)
    with pytest.raises(ValueError, match=r"version 1\.0.*the model is of version 1\.1"):
        SqueezeNetV1_1(weights=path)


def test_onnxruntime_on_the_file_as_it_is(onnx_path, images):
    """The file is in float16 and for 224 pixels, a size at which floor and ceil pooling agree."""
    spec = ModelSpec("1.1", input_size=224, preprocessing=Preprocessing())
    inputs = np.stack([prepare_images(image, spec) for image in images[::4]])
    session = onnxruntime.InferenceSession(onnx_path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs() if value.name not in initializers(onnx.load(onnx_path))]
    theirs = [session.run(None, {names[0]: row[None].transpose(0, 3, 1, 2).astype(np.float16)})[0] for row in inputs]
    ours = SqueezeNetV1_1(weights=onnx_path, input_shape=(224, 224, 3)).predict(inputs, batch_size=25, verbose=0)
    same = np.reshape(theirs, (50, 1000)).argmax(1) == ours.argmax(1)
    assert same.sum() >= 49


def test_onnxruntime_in_float32_at_227_in_ceil_mode(onnx_path, images):
    session = onnxruntime.InferenceSession(edited(onnx_path), providers=["CPUExecutionProvider"])
    spec = ModelSpec("1.1")
    inputs = np.stack([prepare_images(image, spec) for image in images[:20]])
    theirs = session.run(None, {"data_0": inputs.transpose(0, 3, 1, 2)})[0].reshape(20, 1000)
    ours = SqueezeNetV1_1(weights=onnx_path).predict(inputs, verbose=0)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    assert theirs.max() > 0.5


def initializers(model):
    return {tensor.name for tensor in model.graph.initializer}


def edited(path) -> bytes:
    """The same net in float32, for any batch of 227 pixels, with Caffe's pooling."""
    model = onnx.load(path)
    model.opset_import[0].version = 10  # the first with ceil_mode
    for node in model.graph.node:
        if node.op_type == "MaxPool":
            node.attribute.append(onnx.helper.make_attribute("ceil_mode", 1))
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    kept = [value for value in model.graph.input if value.name in initializers(model)]
    del model.graph.input[:], model.graph.output[:], model.graph.value_info[:]
    for value in kept:
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    data = onnx.helper.make_tensor_value_info("data_0", onnx.TensorProto.FLOAT, ["n", 3, 227, 227])
    model.graph.input.extend([data, *kept])
    model.graph.output.append(onnx.helper.make_tensor_value_info("softmaxout_1", onnx.TensorProto.FLOAT, None))
    return model.SerializeToString()
