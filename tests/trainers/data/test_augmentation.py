import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from sqz_keras import ModelSpec, Preprocessing, prepare_images, preprocess_input
from sqz_keras.architecture.spec import PREPROCESSING_MODES
from sqz_keras.images.files import read_image
from sqz_keras.images.preprocessing import resize_and_crop
from trainers.data import augmentation

SPEC = ModelSpec(input_size=24, preprocessing=Preprocessing(mode="tf", resize_to=30))
RANDOM = np.random.default_rng(0)
SMOOTH = Image.fromarray(RANDOM.integers(0, 256, (6, 8, 4), np.uint8)).resize((64, 48), Image.Resampling.BICUBIC)


def _encoded(mode, kind, **options):
    data = io.BytesIO()
    SMOOTH.convert("RGB").convert(mode).save(data, kind, **options) if mode != "RGBA" else SMOOTH.save(data, kind)
    return data.getvalue()


FORMATS = {
    "JPEG": _encoded("RGB", "JPEG", quality=95),
    "grey JPEG": _encoded("L", "JPEG"),
    "PNG": _encoded("RGB", "PNG"),
    "grey PNG": _encoded("L", "PNG"),
    "PNG with a palette": _encoded("P", "PNG"),
    "transparent PNG": _encoded("RGBA", "PNG"),
    "BMP": _encoded("RGB", "BMP"),
    "GIF": _encoded("P", "GIF"),
    "WebP": _encoded("RGB", "WEBP"),
    "TIFF": _encoded("RGB", "TIFF"),
    "16 colours": _encoded("P", "PNG", bits=4),
    "black and white": _encoded("1", "PNG"),
}
ORIENTATION = 0x0112


@pytest.mark.parametrize("name", FORMATS)
def test_images_are_decoded_as_pillow_does(name):
    image, good = augmentation.decode(tf.constant(FORMATS[name]))
    np.testing.assert_array_equal(image, read_image(FORMATS[name]))
    assert good == 1


@pytest.mark.parametrize(("kind", "name"), [("JPEG", "none"), ("PNG", "none"), ("WEBP", "none"), ("JPEG", "modern")])
def test_images_are_turned_upright(kind, name):
    """Both files hold the same pixels; only the EXIF data of one says that the image lies on its side."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    square = SMOOTH.convert("RGB").resize((24, 24), Image.Resampling.BICUBIC)
    options = {"quality": 95, "lossless": True} if kind == "WEBP" else {}
    stored, turned = io.BytesIO(), io.BytesIO()
    square.save(stored, kind, **options)
    square.save(turned, kind, exif=exif, **options)
    spec = ModelSpec(input_size=24, preprocessing=Preprocessing(mode="tf", resize_to=24))
    # "modern" draws the same window for both, and mirrors both or neither.
    images = [
        augmentation.augmented(tf.constant(data.getvalue()), spec, name, 0, 1, guarded=False)[0]
        for data in (stored, turned)
    ]
    expected = [np.rot90(images[0], -1), np.rot90(images[0], 1)]
    assert min(np.abs(images[1] - turn.astype(float)).max() for turn in expected[: 2 if name == "modern" else 1]) <= 1


@pytest.mark.parametrize(("size", "kind"), [((1, 4000), "PNG"), ((101, 1), "JPEG"), ((1, 101), "WEBP")])
def test_elongated_images_are_not_resized(size, kind):
    data = io.BytesIO()
    Image.new("RGB", size, "white").save(data, kind)
    spec = ModelSpec(preprocessing=Preprocessing("torch", "shortest_side"))
    image, good = augmentation.augmented(tf.constant(data.getvalue()), spec, "none", 0, 0)
    assert good == 0 and not image.numpy().any()


def test_cmyk_becomes_rgb():
    """TensorFlow and Pillow convert CMYK by slightly different rules."""
    data = _encoded("CMYK", "JPEG", quality=95)
    image, good = augmentation.decode(tf.constant(data))
    np.testing.assert_allclose(image, read_image(data), atol=12)
    windows = [augmentation.augmented(tf.constant(data), SPEC, "modern", 0, n) for n in range(3)]
    assert good == 1 and all(good == 1 and np.ptp(image) > 12 for image, good in windows)


EARLY_END = FORMATS["JPEG"][: FORMATS["JPEG"].index(b"\xff\xda") + 30] + b"\xff\xd9"


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8\xff", FORMATS["JPEG"][:100], FORMATS["PNG"][:60], b"<html>", EARLY_END]
)
@pytest.mark.parametrize("name", augmentation.AUGMENTATIONS)
def test_what_cannot_be_decoded_is_black(data, name):
    image, good = augmentation.augmented(tf.constant(data), SPEC, name, 0, 0)
    assert good == 0
    np.testing.assert_array_equal(image, np.zeros((24, 24, 3)))
    with pytest.raises(tf.errors.InvalidArgumentError):
        augmentation.augmented(tf.constant(data), SPEC, name, 0, 0, guarded=False)


def _images(data, name, count=60, seed=5, guarded=True):
    @tf.function
    def make(position):
        return augmentation.augmented(tf.constant(data), SPEC, name, seed, position, guarded=guarded)[0]

    return np.stack([make(tf.constant(position, tf.int64)) for position in range(count)])


@pytest.mark.parametrize("mode", PREPROCESSING_MODES)
def test_none_is_what_evaluation_sees(mode):
    """To the bit, once a compiled update has converted the colours."""
    spec = ModelSpec(input_size=24, preprocessing=Preprocessing(mode=mode, resize_to=30))
    evaluated = tf.function(lambda image: prepare_images(image, spec))(tf.constant(read_image(FORMATS["JPEG"])))
    colours = tf.function(lambda image: preprocess_input(image, "channels_last", mode))
    np.testing.assert_array_equal(colours(_images(FORMATS["JPEG"], "none", 1)[0]), evaluated)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("name", augmentation.AUGMENTATIONS)
def test_the_guard_changes_no_image_that_is_whole(kind, name):
    data = FORMATS[kind]
    np.testing.assert_array_equal(_images(data, name, 5, guarded=False), _images(data, name, 5))


@pytest.mark.parametrize("name", ["crop", "authors"])
def test_random_squares_of_the_stretched_image(name):
    whole_spec = ModelSpec(input_size=30, preprocessing=SPEC.preprocessing)
    whole = np.asarray(resize_and_crop(read_image(FORMATS["JPEG"]), whole_spec))
    windows = np.lib.stride_tricks.sliding_window_view(whole, (24, 24, 3))[:, :, 0]
    mirrored, places = 0, set()
    for image in _images(FORMATS["JPEG"], name):
        plain, flipped = (
            np.argwhere(np.isclose(windows, one, atol=1e-2).all((2, 3, 4))) for one in (image, image[:, ::-1])
        )
        assert len(plain) + len(flipped) == 1, "a window of the image, mirrored or not"
        mirrored += len(flipped)
        places.update(map(tuple, [*plain, *flipped]))
    assert mirrored == 0 if name == "crop" else 15 < mirrored < 45
    assert {row for row, _ in places} == {column for _, column in places} == set(range(7))


@pytest.mark.parametrize("name", ["JPEG", "PNG"])
def test_modern_windows_are_resized_parts_of_the_image(name):
    """The colour of each pixel of the image is its position, so each input shows where its window was."""
    rows, columns = np.mgrid[0:200, 0:240]
    image = np.stack([rows, columns, np.full_like(rows, 128)], -1).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(image).save(data, name, quality=100, subsampling=0)
    inputs = _images(data.getvalue(), "modern", 80)
    assert inputs.dtype == np.uint8
    inputs = inputs.astype(np.float32)
    top, bottom = inputs[:, 0, :, 0].mean(1), inputs[:, -1, :, 0].mean(1)
    left, right = inputs[:, :, 0, 1].mean(1), inputs[:, :, -1, 1].mean(1)
    assert (top < bottom).all() and 20 < (left > right).sum() < 60, "about half are mirrored"
    stretch = 24 / 23  # from the centres of the outer pixels to their outer edges
    heights, widths = (bottom - top) * stretch, np.abs(right - left) * stretch
    area, aspect = heights * widths / (200 * 240), widths / heights
    assert 0.07 < area.min() < 0.25 and 0.8 < area.max() < 1.05
    assert 0.7 < aspect.min() < 0.85 and 1.2 < aspect.max() < 1.4
    np.testing.assert_allclose(inputs[..., 2], 128, atol=4)


def test_the_random_choices_follow_from_seed_and_position():
    first = _images(FORMATS["JPEG"], "modern", 5)
    np.testing.assert_array_equal(first, _images(FORMATS["JPEG"], "modern", 5))
    assert not (first == _images(FORMATS["JPEG"], "modern", 5, seed=6)).all((1, 2, 3)).any()
    assert len({image.tobytes() for image in first}) == 5
