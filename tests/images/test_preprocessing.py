import os
import pathlib
import subprocess
import sys

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from sqz_keras import ModelSpec, Preprocessing, decode_predictions, get_record, prepare_images, preprocess_input
from sqz_keras.images.preprocessing import restore_rgb

RGB = np.array([[[10, 20, 30], [250, 0, 128]]], np.uint8)  # (1, 2, 3)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("authors", [[30 - 104, 20 - 117, 10 - 123], [128 - 104, 0 - 117, 250 - 123]]),
        ("caffe", [[30 - 103.939, 20 - 116.779, 10 - 123.68], [128 - 103.939, 0 - 116.779, 250 - 123.68]]),
        ("tf", [[10 / 127.5 - 1, 20 / 127.5 - 1, 30 / 127.5 - 1], [250 / 127.5 - 1, -1, 128 / 127.5 - 1]]),
        (
            "torch",
            [
                [(10 / 255 - 0.485) / 0.229, (20 / 255 - 0.456) / 0.224, (30 / 255 - 0.406) / 0.225],
                [(250 / 255 - 0.485) / 0.229, (0 - 0.456) / 0.224, (128 / 255 - 0.406) / 0.225],
            ],
        ),
    ],
)
def test_modes(mode, expected):
    np.testing.assert_allclose(preprocess_input(RGB, mode=mode)[0], expected, rtol=0, atol=1e-5)
    first = preprocess_input(RGB.transpose(2, 0, 1), data_format="channels_first", mode=mode)
    np.testing.assert_allclose(first.transpose(1, 2, 0)[0], expected, rtol=0, atol=1e-5)
    tensor = preprocess_input(tf.constant(RGB[None]), mode=mode)
    np.testing.assert_allclose(tensor[0, 0], expected, rtol=0, atol=1e-5)


def test_authors_is_the_default_and_only_caffe_is_as_in_keras_applications():
    image = np.random.default_rng(0).uniform(0, 255, (2, 5, 5, 3)).astype(np.float32)
    np.testing.assert_array_equal(preprocess_input(image), preprocess_input(image, mode="authors"))
    theirs = keras.applications.imagenet_utils.preprocess_input(image.copy(), mode="caffe")
    np.testing.assert_allclose(preprocess_input(image, mode="caffe"), theirs, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("mode", ["authors", "torch", "tf"])
def test_the_callers_array_is_never_changed(dtype, mode):
    image = RGB.astype(dtype)
    result = preprocess_input(image, mode=mode)
    np.testing.assert_array_equal(image, RGB)
    assert result.dtype == np.float32
    result[:] = 0
    np.testing.assert_array_equal(image, RGB)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="mode must be one of"):
        preprocess_input(RGB, mode="bgr")
    with pytest.raises(ValueError, match="data_format"):
        preprocess_input(RGB, data_format="NHWC")
    with pytest.raises(ValueError, match=r"3 channels.*\(1, 2, 4\)"):
        preprocess_input(np.zeros((1, 2, 4)))


@pytest.mark.parametrize("mode", ["authors", "caffe", "torch", "tf"])
def test_colours_are_restored_from_network_inputs(mode):
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 30, 3), np.uint8)
    images[0, 0, 0], images[0, 0, 1] = 0, 255
    inputs = preprocess_input(images, "channels_last", mode)
    restored = restore_rgb(inputs, mode)
    assert restored.dtype == np.uint8
    np.testing.assert_array_equal(restored, images)
    np.testing.assert_array_equal(restore_rgb(inputs[1], mode), images[1])
    # Resized images have values between the levels, and slightly outside their range.
    between = np.random.default_rng(1).uniform(-5, 260, (8, 8, 3)).astype(np.float32)
    restored = restore_rgb(preprocess_input(between, "channels_last", mode), mode)
    assert np.abs(restored - np.clip(between, 0, 255)).max() <= 0.501


def test_what_preprocess_input_cannot_have_made_is_not_restored():
    with pytest.raises(ValueError, match="mode must be one of"):
        restore_rgb(np.zeros((2, 2, 3), np.float32), "bgr")
    for shape in ((2, 2, 1), (3,)):
        with pytest.raises(ValueError, match="3 channels"):
            restore_rgb(np.zeros(shape, np.float32))


@pytest.mark.parametrize("mode", ["authors", "caffe", "torch", "tf"])
@pytest.mark.parametrize("shape", [(None, None, None), (2, None, None, None), None])
def test_channels_or_a_whole_shape_that_only_the_graph_knows(mode, shape):
    graph = tf.function(lambda x: preprocess_input(x, mode=mode), input_signature=[tf.TensorSpec(shape, tf.uint8)])
    first = tf.function(
        lambda x: preprocess_input(x, "channels_first", mode), input_signature=[tf.TensorSpec(shape, tf.uint8)]
    )
    images = RGB if shape == (None, None, None) else np.stack([RGB, RGB])
    expected = preprocess_input(images, mode=mode)
    np.testing.assert_allclose(graph(images), expected, atol=1e-5)
    np.testing.assert_allclose(first(np.moveaxis(images, -1, -3)), np.moveaxis(expected, -1, -3), atol=1e-5)


def test_symbolic_keras_tensors():
    for channels in (3, None):
        inputs = keras.Input((1, 2, channels))
        model = keras.Model(inputs, preprocess_input(inputs))
        np.testing.assert_allclose(model(RGB[None]), preprocess_input(RGB[None]), atol=1e-5)
    with pytest.raises(ValueError, match="3 channels"):
        preprocess_input(keras.Input((1, 2, 4)))


def test_in_a_map_nothing_is_called_that_autograph_cannot_convert(monkeypatch):
    """It would print a warning that the user cannot act on."""
    monkeypatch.setattr("importlib.util.find_spec", lambda *arguments: pytest.fail("find_spec has no source"))
    data = tf.data.Dataset.from_tensors(RGB).map(preprocess_input)
    np.testing.assert_allclose(next(iter(data)), preprocess_input(RGB), atol=1e-5)


UNDER_JAX = """
import keras, numpy as np, tensorflow as tf
from sqz_keras import preprocess_input
assert keras.backend.backend() == "jax"
images = np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3)
for mode in ("authors", "caffe", "torch", "tf"):
    expected = preprocess_input(images, mode=mode)
    for shape in ((4, 4, 3), (None, None, None), None):
        data = tf.data.Dataset.from_generator(lambda: iter(images), output_signature=tf.TensorSpec(shape, tf.uint8))
        mapped = list(data.map(lambda x: preprocess_input(x, mode=mode)).as_numpy_iterator())
        np.testing.assert_allclose(mapped, expected, atol=1e-5)
    np.testing.assert_allclose(preprocess_input(keras.ops.array(images), mode=mode), expected, atol=1e-5)
print("done")
"""


@pytest.mark.large
def test_inside_a_map_with_another_backend():
    env = os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    result = subprocess.run([sys.executable, "-c", UNDER_JAX], env=env, capture_output=True, text=True, check=False)
    assert result.stdout.endswith("done\n"), result.stderr


def test_stretch_and_centre_crop_against_numpy():
    """Half-pixel bilinear without antialiasing, then the middle 227 of 256."""
    image = np.random.default_rng(0).integers(0, 256, (64, 100, 3), np.uint8)

    def weights(size, out):
        matrix = np.zeros((out, size))
        for i in range(out):
            position = np.clip((i + 0.5) * size / out - 0.5, 0, size - 1)
            low = int(position)
            high = min(low + 1, size - 1)
            matrix[i, low] += 1 - (position - low)
            matrix[i, high] += position - low
        return matrix[14 : 14 + 227]

    expected = np.einsum("ih,jw,hwc->ijc", weights(64, 256), weights(100, 256), image.astype(np.float64))
    expected = expected[..., ::-1] - np.array([104.0, 117.0, 123.0])
    spec = ModelSpec(preprocessing=Preprocessing(antialias=False))
    np.testing.assert_allclose(prepare_images(image, spec), expected, atol=1e-3)


def test_shortest_side_is_torchvisions(tmp_path):
    """As torchvision's transform: Pillow's antialiased bilinear to a short side of 256, then the centre 224."""
    smooth = np.add.outer(np.arange(300), np.arange(451))[..., None] % 256 * np.ones(3)
    image = smooth.astype(np.uint8)
    spec = ModelSpec(input_size=224, preprocessing=Preprocessing("torch", "shortest_side", 256))
    resized = np.asarray(Image.fromarray(image).resize((451 * 256 // 300, 256), Image.Resampling.BILINEAR))
    left = (resized.shape[1] - 224) // 2
    expected = preprocess_input(resized[16 : 16 + 224, left : left + 224], mode="torch")
    assert np.abs(prepare_images(image, spec) - expected).max() < 0.02  # Pillow rounds to whole numbers


@pytest.mark.parametrize(
    "spec", [ModelSpec(), ModelSpec(input_size=224, preprocessing=Preprocessing("torch", "shortest_side", 256))]
)
def test_same_inside_a_graph_of_unknown_size(spec):
    images = np.random.default_rng(0).integers(0, 256, (2, 300, 210, 3), np.uint8)
    graph = tf.function(lambda x: prepare_images(x, spec), input_signature=[tf.TensorSpec((None, None, None, 3))])
    inside = graph(images.astype(np.float32))
    assert graph.get_concrete_function().structured_outputs.shape == (None, spec.input_size, spec.input_size, 3)
    np.testing.assert_allclose(inside, prepare_images(images, spec), atol=1e-4)
    np.testing.assert_allclose(inside[1], prepare_images(images[1], spec), atol=1e-4)


def test_decode_predictions():
    preds = np.zeros((2, 1000))
    preds[0, 281], preds[0, 0], preds[1, 999] = 0.75, 0.25, 1
    first, second = decode_predictions(preds, top=2)
    assert first == [("n02123045", "tabby", 0.75), ("n01440764", "tench", 0.25)]
    assert second[0][0] == "n15075141"
    assert [len(row) for row in decode_predictions(preds)] == [5, 5]


@pytest.mark.parametrize("shape", [(1000,), (2, 10), (1, 1000, 1)])
def test_decode_predictions_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"\(N, 1000\)"):
        decode_predictions(np.zeros(shape))


@pytest.mark.parametrize("top", [0, 1001, 3.0, "3"])
def test_decode_predictions_refuses_top(top):
    with pytest.raises(ValueError, match=r"1\.\.1000"):
        decode_predictions(np.zeros((1, 1000)), top=top)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, ml_dtypes.bfloat16])
def test_decode_predictions_of_quantised_models(dtype):
    """Negating the scores to sort them would fail: -x of an unsigned x is not below 0, and in int8 -(-128) is -128."""
    preds = np.full((1, 1000), np.iinfo(dtype).min if dtype in (np.uint8, np.int8) else 0, dtype)
    preds[0, 281], preds[0, 0] = 100, 50
    (row,) = decode_predictions(preds, top=2)
    assert row == [("n02123045", "tabby", 100.0), ("n01440764", "tench", 50.0)]


def test_decode_predictions_refuses_nan():
    with pytest.raises(ValueError, match="some are NaN: look for NaN in the images and the weights"):
        decode_predictions(np.full((1, 1000), np.nan))


def test_decode_predictions_refuses_infinity():
    with pytest.raises(ValueError, match="some are infinite"):
        decode_predictions(np.full((1, 1000), np.inf))


@pytest.mark.parametrize(
    "shape", [(3, 20, 30, 4), (3, 20, 30, 1), (2, 3, 20, 30), (20, 30, 4), (20, 30), (1, 1, 20, 30, 3)]
)
def test_images_of_another_shape_are_refused(shape):
    """Three RGBA images have as many values as four RGB images, and used to be read as four."""
    for images in (np.zeros(shape, np.uint8), tf.zeros(shape)):
        with pytest.raises(ValueError, match=r"\(N, H, W, 3\) or \(H, W, 3\), got .*convert\('RGB'\)"):
            prepare_images(images, ModelSpec())


@pytest.mark.parametrize("resize", ["stretch", "shortest_side"])
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((0, 20, 3)), r"at least one pixel, got shape \(0, 20, 3\)"),
        (tf.zeros((2, 20, 0, 3)), r"at least one pixel, got shape \(2, 20, 0, 3\)"),
        ([np.zeros((20, 20, 3)), np.zeros((30, 20, 3))], "images of one size"),
        ("photo.jpg", r"got 'photo\.jpg'; sqz_keras\.images\.files\.read_image"),
        (None, "an array or a tensor of colours, got None"),
    ],
)
def test_what_is_no_image_is_refused(images, message, resize):
    with pytest.raises(ValueError, match=f"^images must .*{message}"):
        prepare_images(images, ModelSpec(preprocessing=Preprocessing(resize=resize)))


@pytest.mark.parametrize("x", [[np.zeros((2, 2, 3)), np.zeros((3, 2, 3))], "photo.jpg", None])
def test_colours_of_what_is_no_image_are_refused(x):
    with pytest.raises(ValueError, match=r"^x must be (images of one size|an array or a tensor of colours)"):
        preprocess_input(x)


def test_a_keras_model_of_any_size_is_stretched_alone():
    images = keras.Input((None, None, 3), dtype="uint8")
    assert prepare_images(images, ModelSpec()).shape == (None, 227, 227, 3)
    with pytest.raises(ValueError, match=r"shortest_side.*give its keras\.Input a size, or .*tf\.data"):
        prepare_images(images, ModelSpec(preprocessing=Preprocessing(resize="shortest_side")))


def test_other_things_than_a_spec_are_refused():
    with pytest.raises(ValueError, match=r"spec must be a sqz_keras\.ModelSpec, got Record: .*get_record"):
        prepare_images(RGB, get_record("squeezenet1.1_authors"))


def test_decode_predictions_takes_tensors_as_keras_does(monkeypatch):
    """NumPy itself refuses PyTorch tensors that are on a GPU or have a gradient."""
    monkeypatch.setattr(keras.ops, "convert_to_numpy", lambda tensor: np.eye(1000)[[3]])
    assert decode_predictions(object(), top=1)[0][0][1] == "tiger_shark"


def test_a_model_of_other_channels_takes_no_images():
    with pytest.raises(ValueError, match="This model takes 4 channels, and images are RGB: open it"):
        prepare_images(np.zeros((20, 30, 3), np.uint8), ModelSpec(channels=4))


def test_scaled_colours_are_warned_about(recwarn):
    preprocess_input(RGB.astype(np.float32))
    preprocess_input(np.zeros((2, 2, 3), np.float32))
    preprocess_input(RGB // 128)
    prepare_images(RGB, ModelSpec())
    assert not recwarn
    with pytest.warns(UserWarning, match="^preprocess_input .*multiply by 255"):
        preprocess_input(RGB / 255)
    with pytest.warns(UserWarning, match="^preprocess_input .*multiply by 255"):
        preprocess_input(RGB > 128)
    for wrong in (preprocess_input(RGB), preprocess_input(RGB, mode="torch"), RGB.astype(np.uint16) * 257):
        with pytest.warns(UserWarning, match="got values in .*as if preprocessed already or of 16 bits"):
            preprocess_input(wrong)
    with pytest.warns(UserWarning, match="^prepare_images .*multiply by 255"):
        prepare_images(RGB / 255, ModelSpec())
