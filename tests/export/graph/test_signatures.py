"""An export answers as the model does through every signature, and a bad image does not affect the others."""

import os
import struct
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from export import contract
from export.graph.signatures import ServedModel
from sqz_keras import ModelSpec, Preprocessing, prepare_images
from sqz_keras.images.files import read_image
from sqz_keras.images.pillow import MAX_PIXELS
from sqz_keras.models import squeezenet
from tests.export.samples import encode, random_arrays, random_image, small_spec


@pytest.fixture(scope="module")
def served(base_path):
    return tf.saved_model.load(os.fspath(base_path / "3"))


@pytest.fixture(scope="module")
def serve_bytes(served):
    def call(*images):
        outputs = served.signatures["serve_bytes"](image_bytes=tf.constant(images, tf.string))
        return {name: value.numpy() for name, value in outputs.items()}

    return call


@pytest.fixture(scope="module")
def expected(model, spec):
    """A function that gives the model's own probabilities for whole images (H, W, 3)."""

    def predict(*images):
        return model.predict_on_batch(np.concatenate([prepare_images(image[None], spec) for image in images]))

    return predict


def header_only_png(width, height):
    """A PNG file that declares any size: a valid header, without the pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")


def header_only_jpeg(width, height):
    """A JPEG file whose header declares a size that its pixels do not have."""
    data = encode(random_image(16, 16))
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def test_float_images_of_any_size(served, expected, spec):
    resized = (spec.preprocessing.resize_to,) * 2  # these are not resized
    assert spec.preprocessing.resize_to > spec.input_size
    for size in ((36, 36), (20, 90), (200, 61), resized, (resized[0], resized[0] + 1)):
        images = np.stack([np.asarray(random_image(*size, seed=seed), np.float32) for seed in (1, 2, 3)])
        outputs = served.signatures["serving_default"](images=tf.constant(images))
        np.testing.assert_allclose(outputs["probabilities"], expected(*images), atol=1e-5)
    assert np.ptp(outputs["probabilities"].numpy(), axis=0).max() > 1e-2, "the images must differ"


def test_top_classes_are_named_best_first(served, spec):
    image = np.asarray(random_image(50, 50), np.float32)[None]
    outputs = {name: value.numpy()[0] for name, value in served.signatures["serving_default"](images=image).items()}
    best = np.argsort(-outputs["probabilities"], kind="stable")[:5]
    np.testing.assert_array_equal(outputs["class_ids"], best)
    np.testing.assert_array_equal(outputs["scores"], outputs["probabilities"][best])
    assert [name.decode() for name in outputs["classes"]] == [spec.labels[index] for index in best]


FORMATS = {
    "jpeg": encode(random_image(60, 80)),
    "jpeg, grey": encode(random_image(70, 50, "L")),
    "jpeg, progressive": encode(random_image(90, 40), progressive=True, quality=60),
    "png": encode(random_image(33, 34), "PNG"),
    "png, grey": encode(random_image(40, 44, "L"), "PNG"),
    "png, palette": encode(random_image(40, 44).quantize(17), "PNG"),
    "png, 16 colours": encode(random_image(40, 44).quantize(16), "PNG"),
    "png, 4 colours": encode(random_image(40, 44).quantize(4), "PNG"),
    "png, black and white": encode(random_image(40, 44).convert("1"), "PNG"),
    "png, 16 bit": encode(Image.fromarray(np.asarray(random_image(40, 44, "L"), np.uint16) * 257), "PNG"),
    "png, transparent": encode(
        Image.merge("RGBA", (*random_image(50, 41).split(), random_image(50, 41, "L", seed=5))), "PNG"
    ),
    "png, grey, transparent": encode(
        Image.merge("LA", (random_image(50, 41, "L"), random_image(50, 41, "L", seed=5))), "PNG"
    ),
}


def test_encoded_images_of_every_kind_and_size_in_one_batch(serve_bytes, expected):
    outputs = serve_bytes(*FORMATS.values())
    assert set(outputs["status"]) == {b"OK"}
    images = [read_image(data).astype(np.float32) for data in FORMATS.values()]
    for name, *rows in zip(FORMATS, outputs["probabilities"], expected(*images), strict=True):
        np.testing.assert_allclose(*rows, atol=1e-5, err_msg=name)


def test_cmyk_has_the_colours_that_people_see(serve_bytes, expected):
    data = encode(random_image(60, 60, "CMYK"))
    colours = expected(read_image(data).astype(np.float32))
    # Pillow rounds the products of ink and black, TensorFlow truncates them: they differ by one level of 255.
    np.testing.assert_allclose(serve_bytes(data)["probabilities"], colours, atol=0.02)
    wrong = expected(255 - read_image(data).astype(np.float32))
    assert np.abs(wrong - colours).max() > 0.1


BROKEN = {
    "nothing": (b"", contract.STATUS_UNKNOWN_FORMAT),
    "text": (b"GET / HTTP/1.1", contract.STATUS_UNKNOWN_FORMAT),
    "gif": (encode(random_image(9, 9), "GIF"), contract.STATUS_UNKNOWN_FORMAT),
    "jpeg, first bytes": (FORMATS["jpeg"][:3], contract.STATUS_DAMAGED),
    "jpeg, half": (FORMATS["jpeg"][: len(FORMATS["jpeg"]) // 2], contract.STATUS_DAMAGED),
    "jpeg, an early end": (FORMATS["jpeg"][: len(FORMATS["jpeg"]) // 2] + b"\xff\xd9", contract.STATUS_DAMAGED),
    "png, first bytes": (FORMATS["png"][:8], contract.STATUS_DAMAGED),
    "png, half": (FORMATS["png"][: len(FORMATS["png"]) // 2], contract.STATUS_DAMAGED),
    "png, few pixels": (header_only_png(1000, 1000), contract.STATUS_DAMAGED),
    "png, size 0": (header_only_png(0, 10), contract.STATUS_TOO_LARGE),
    "png, 30,000 x 30,000": (header_only_png(30_000, 30_000), contract.STATUS_TOO_LARGE),
    "png, 65,536 x 65,536": (header_only_png(65_536, 65_536), contract.STATUS_TOO_LARGE),
    "png, 4 billion wide": (header_only_png(2**32 - 1, 1), contract.STATUS_TOO_LARGE),
    "png, a line": (header_only_png(101, 1), contract.STATUS_TOO_LARGE),
    "jpeg, 30,000 x 30,000": (header_only_jpeg(30_000, 30_000), contract.STATUS_TOO_LARGE),
    "jpeg, a line": (header_only_jpeg(3, 301), contract.STATUS_TOO_LARGE),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_image_that_cannot_be_read_does_not_fail_the_others(serve_bytes, name):
    broken, status = BROKEN[name]
    good = [encode(random_image(40, 50, seed=seed)) for seed in (1, 2)]
    alone, among = serve_bytes(*good), serve_bytes(good[0], broken, good[1])
    assert [value.decode() for value in among["status"]] == ["OK", status, "OK"]
    np.testing.assert_allclose(among["probabilities"][[0, 2]], alone["probabilities"], atol=1e-6)
    np.testing.assert_array_equal(among["classes"][[0, 2]], alone["classes"])
    assert not among["probabilities"][1].any()
    assert not among["scores"][1].any()
    assert among["class_ids"][1].tolist() == [-1] * 5
    assert among["classes"][1].tolist() == [b""] * 5


def test_a_batch_of_broken_images_alone(serve_bytes):
    assert serve_bytes(b"one", FORMATS["png"][:20])["status"].tolist() == [
        contract.STATUS_UNKNOWN_FORMAT.encode(),
        contract.STATUS_DAMAGED.encode(),
    ]


def test_sizes_are_bounded_before_anything_is_allocated(serve_bytes, served):
    def peak():
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) / 1024

    if not os.path.exists("/proc/self/status"):
        pytest.skip("the peak of memory is read from /proc")
    assert MAX_PIXELS < 30_000**2
    serve_bytes(FORMATS["png"])
    before = peak()
    serve_bytes(*[header_only_png(30_000, 30_000), header_only_jpeg(30_000, 30_000)] * 4)
    assert peak() - before < 50
    with pytest.raises(tf.errors.InvalidArgumentError, match="too elongated"):
        served.signatures["serving_default"](images=tf.zeros((1, 1, 101, 3)))


def save_and_load(spec, arrays, folder):
    (folder / "labels.txt").write_text("not read here\n")
    ServedModel(spec, arrays, folder / "labels.txt").save(folder / "model")
    return tf.saved_model.load(os.fspath(folder / "model"))


def test_shortest_side_resize_and_fewer_classes_than_top_k(tmp_path):
    spec = small_spec(
        classes=3, labels=None, preprocessing=Preprocessing("torch", "shortest_side", resize_to=40, antialias=True)
    )
    arrays = random_arrays(spec)
    served = save_and_load(spec, arrays, tmp_path)
    data = FORMATS["jpeg"]
    outputs = served.signatures["serve_bytes"](image_bytes=tf.constant([data]))
    expected = squeezenet.build(spec, arrays).predict_on_batch(prepare_images(read_image(data)[None], spec))
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-5)
    assert sorted(outputs["classes"].numpy()[0]) == [b"0", b"1", b"2"]


@pytest.mark.large
def test_full_size_net(tmp_path):
    spec = ModelSpec("1.0", labels=tuple(f"{index:04}" for index in range(1000)))
    arrays = random_arrays(spec)
    served = save_and_load(spec, arrays, tmp_path)
    image = read_image(encode(random_image(375, 500)))
    expected = squeezenet.build(spec, arrays).predict_on_batch(prepare_images(image[None], spec))
    assert expected.max() > 0.01, "the probabilities must differ from one another"
    images = tf.constant(image[None], tf.float32)
    np.testing.assert_allclose(
        served.signatures["serving_default"](images=images)["probabilities"], expected, atol=1e-5
    )
    encoded = tf.constant([encode(Image.fromarray(image), "PNG")])
    outputs = served.signatures["serve_bytes"](image_bytes=encoded)
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-5)


def example(data: bytes, feature: str = contract.EXAMPLE_FEATURE) -> bytes:
    """A serialised Example with an image in it."""
    values = tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))
    return tf.train.Example(features=tf.train.Features(feature={feature: values})).SerializeToString()


def test_classify_answers_as_serve_bytes_and_fails_only_what_is_broken(served, serve_bytes):
    good = [encode(random_image(40, 50, seed=seed)) for seed in (1, 2)]
    broken = [example(FORMATS["jpeg"][:99]), example(good[0], "image"), b"\xff\xff no example", example(b"")]
    outputs = served.signatures["classify"](inputs=tf.constant([example(good[0]), *broken, example(good[1])]))
    outputs = {name: value.numpy() for name, value in outputs.items()}
    expected = serve_bytes(*good)
    np.testing.assert_array_equal(outputs["classes"][[0, -1]], expected["classes"])
    np.testing.assert_allclose(outputs["scores"][[0, -1]], expected["scores"], atol=1e-6)
    assert not outputs["scores"][1:-1].any()
    assert set(outputs["classes"][1:-1].ravel()) == {b""}


def test_features_are_what_the_classifier_sees_averaged(served, model, spec):
    images = np.stack([np.asarray(random_image(50, 60, seed=seed), np.float32) for seed in (1, 2)])
    trunk = keras.Model(model.inputs, model.get_layer("drop9").input)
    expected = trunk.predict_on_batch(prepare_images(images, spec)).mean((1, 2))
    actual = served.signatures["features"](images=tf.constant(images))["features"]
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 0.1
