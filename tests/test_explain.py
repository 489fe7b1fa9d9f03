"""Maps of classes: against the model's own probabilities, and against where the object is in the image."""

import dataclasses

import keras
import numpy as np
import pytest

from sqz_keras import Metaparameters, ModelSpec, Preprocessing, SqueezeNet, class_map, overlay, prepare_images
from sqz_keras.explain import ClassMaps, colour_scale
from sqz_keras.images.files import read_image
from sqz_keras.models.squeezenet import build
from sqz_keras.weights.resolve import resolve_model
from tests.compression.tiny_net import tiny_arrays

SMALL = Metaparameters(base_e=8, incr_e=8, num_fire_modules=3, stem_filters=8, stem_kernel=5, pool_after=(1, 3))
RED = 1  # the class that the net of `red_net` sees where an image is red
SHAPES = [(120, 120), (90, 200), (210, 100)]


def red_net(**fields):
    """A net in which the map of class RED is how much more red than blue there is; the other class is silent."""
    net = Metaparameters(base_e=2, incr_e=0, num_fire_modules=2, stem_filters=2, stem_kernel=3, pool_after=(1, 2))
    spec = ModelSpec(None, metaparameters=net, **{"classes": 2, "input_size": 95, **fields})
    arrays = {name: np.zeros(shape, np.float32) for name, shape in spec.weight_shapes().items()}
    for name, array in arrays.items():
        if name.endswith("/kernel") and name not in ("conv1/kernel", "conv10/kernel"):
            array[array.shape[0] // 2, array.shape[1] // 2] = 1
    arrays["conv1/kernel"][:] = np.array([-1, 0, 1], np.float32)[:, None] / 9  # of blue, green, red
    arrays["conv10/kernel"][..., RED] = 1
    return spec, build(spec, arrays)


def grey_with_red(height, width, row, column):
    """A grey image with a red square of 16 pixels at (row, column), its centre."""
    image = np.full((height, width, 3), 120, np.uint8)
    image[row - 8 : row + 8, column - 8 : column + 8] = (250, 20, 20)
    return image


def heat(picture):
    """The level, 0..255, of each pixel of an overlay of a grey image: how much more red than blue it has."""
    return np.clip(picture[..., 0].astype(float) - picture[..., 2], 0, None)


def centre(values):
    """The centre of mass (row, column) of a map, in its pixels."""
    rows, columns = np.indices(values.shape) + 0.5
    return np.array([(rows * values).sum(), (columns * values).sum()]) / values.sum()


@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec("1.0", classes=7, input_size=63, conv10_padding=1),
        ModelSpec("1.1", classes=7, input_size=64),
        ModelSpec("1.1", "simple", classes=7, input_size=64),
        ModelSpec("1.0", "complex", classes=7, input_size=64),
        ModelSpec(None, "simple", SMALL, classes=7, input_size=50),
    ],
    ids=lambda spec: f"{spec.version}-{spec.bypass}",
)
def test_the_means_of_the_maps_give_the_probabilities(spec):
    """softmax(means) is the model's own answer, whatever its architecture."""
    model = build(spec, tiny_arrays(spec))
    image = np.random.default_rng(0).uniform(-100, 100, (spec.input_size, spec.input_size, 3)).astype(np.float32)
    maps = [class_map(model, image, np.int64(number)) for number in range(spec.classes)]
    size = next(layer.size for layer in spec.layers() if layer.name == "conv10")
    assert {(values.shape, values.dtype.name) for values in maps} == {((size, size), "float32")}
    assert np.min(maps) >= 0 and np.ptp(maps) > 0
    probabilities = model.predict(image[None], verbose=0)[0]
    powers = np.exp(np.mean(maps, axis=(1, 2)) - np.max(np.mean(maps, axis=(1, 2))))
    np.testing.assert_allclose(powers / powers.sum(), probabilities, rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(class_map(model, image[None]), maps[probabilities.argmax()])


def test_a_model_of_any_input_size_and_without_activation():
    model = SqueezeNet((None, None, 3), weights=None, classes=3, classifier_activation=None, version="1.1")
    image = np.random.default_rng(0).uniform(-100, 100, (64, 100, 3))
    values = class_map(model, keras.ops.convert_to_tensor(image), 2)
    assert values.shape == (3, 6)
    assert values.mean() == pytest.approx(model.predict(image[None], verbose=0)[0, 2], rel=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", [0, 1])
def test_the_half_with_the_object_lights_up(shape, side):
    spec, model = red_net(preprocessing=Preprocessing(resize_to=100))
    height, width = shape
    image = grey_with_red(height, width, height // 2, width * (1 + 2 * side) // 4)
    values = class_map(model, prepare_images(image, spec))
    halves = [half.sum() for half in np.array_split(heat(overlay(image, values, spec)), [width // 2], axis=1)]
    assert halves[side] > 20 * halves[1 - side]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("resize", ["stretch", "shortest_side"])
@pytest.mark.parametrize("padding", [0, 1])
def test_the_overlay_undoes_resizing_and_cropping(shape, resize, padding):
    """Wherever the crop leaves a red square, its heat is centred on it, to a fraction of a value of the map."""
    spec, model = red_net(conv10_padding=padding, preprocessing=Preprocessing(resize=resize, resize_to=120))
    cell = 8 * (np.array(shape) if resize == "stretch" else min(shape)) / 120  # pixels of the image per value
    for steps in ((0, 0), (-3, 2), (2, -3)):
        row, column = (np.array(shape) / 2 + np.array(steps) * cell).astype(int)
        image = grey_with_red(*shape, row, column)
        picture = overlay(image, class_map(model, prepare_images(image, spec), RED), spec)
        assert picture.shape == image.shape and picture.dtype == np.uint8
        assert np.abs((centre(heat(picture)) - (row, column)) / cell).max() < 0.35


def test_what_the_crop_leaves_out_is_dark_and_grey():
    spec, model = red_net(preprocessing=Preprocessing(resize="shortest_side", resize_to=95))
    image = grey_with_red(95, 195, 47, 97)
    picture = overlay(image, class_map(model, prepare_images(image, spec)), spec)
    outside = np.delete(picture, np.s_[50:145], axis=1)
    assert (outside == 60).all()
    assert (np.ptp(picture[:, 50:145], axis=-1) > 0).all()


def test_a_silent_class_has_the_lowest_colour_everywhere():
    spec, model = red_net(preprocessing=Preprocessing(resize_to=95))
    image = np.full((40, 60, 3), 120, np.uint8)
    picture = overlay(image, class_map(model, prepare_images(image, spec), 0), spec)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 1 and np.isfinite(picture).all()


def test_the_lightness_of_the_colours_rises_evenly():
    """CIE L*, computed here from sRGB: its equal steps look equal to the eye."""
    rgb = colour_scale() / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    lightness = np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)
    np.testing.assert_allclose(lightness, np.linspace(0, 98, 256), atol=6)
    assert (np.diff(lightness) > -0.2).all()


def test_two_real_pictures_side_by_side_light_up_each_for_its_class(test_data):
    spec, arrays = resolve_model(test_data / "weights" / "deep_compression" / "compressed_SqueezeNet.net")
    model, names = build(spec, arrays), spec.class_names()
    folder = test_data / "images" / "imagenet_sample"
    zebra, swan = (
        read_image(folder / name)[:330, :330] for name in ("n02391049_zebra.JPEG", "n01860187_black_swan.JPEG")
    )
    for pair, sides in (((zebra, swan), {"zebra": 0, "black_swan": 1}), ((swan, zebra), {"zebra": 1, "black_swan": 0})):
        image = np.concatenate(pair, axis=1)
        for name, side in sides.items():
            values = class_map(model, prepare_images(image, spec), names.index(name))
            halves = values[:, :7].sum(), values[:, 8:].sum()
            assert halves[side] > 4 * halves[1 - side], (name, halves)


def test_maps_of_several_images_by_one_object_are_those_of_class_map():
    _, model = red_net()
    maps = ClassMaps(model)
    for image in np.random.default_rng(0).uniform(-100, 100, (2, 95, 95, 3)):
        np.testing.assert_array_equal(maps(image, RED), class_map(model, image, RED))


def test_a_model_without_the_top_is_refused():
    model = SqueezeNet((64, 64, 3), include_top=False, weights=None, name="trunk")
    with pytest.raises(ValueError, match=r"'trunk' has no layer conv10 .* include_top=True"):
        class_map(model, np.zeros((64, 64, 3)))


@pytest.mark.parametrize(
    ("shape", "class_id", "message"),
    [
        ((95, 90, 3), None, r"of shape \(95, 95, 3\) or \(1, 95, 95, 3\), got \(95, 90, 3\)"),
        ((2, 95, 95, 3), None, "one image"),
        ((95, 95), None, "one image"),
        ((95, 95, 3), 2, "class_id must be an integer of at least 0 and at most 1, got 2"),
        ((95, 95, 3), "tench", "class_id must be an integer"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(shape, class_id, message):
    with pytest.raises(ValueError, match=message):
        class_map(red_net()[1], np.zeros(shape), class_id)


@pytest.mark.parametrize(
    ("image", "values", "message"),
    [
        (np.zeros((9, 9)), np.zeros((11, 11)), r"image must have shape \(H, W, 3\), got \(9, 9\)"),
        (np.zeros((0, 9, 3)), np.zeros((11, 11)), r"image must have shape \(H, W, 3\), got \(0, 9, 3\)"),
        (np.zeros((9, 9, 3)), np.zeros((13, 13)), r"of shape \(11, 11\); got shape \(13, 13\)"),
        (np.zeros((9, 9, 3)), np.full((11, 11), np.nan), "finite"),
        (np.zeros((9, 9, 3)), np.full((11, 11), -1), "at least 0"),
        (np.full((9, 9, 3), 257, np.uint16), np.zeros((11, 11)), r"RGB in 0\.\.255, not .*; got values in 257\.\.257"),
        (np.full((9, 9, 3), -1.5), np.zeros((11, 11)), "not the network's input"),
        (np.full((9, 9, 3), np.nan), np.zeros((11, 11)), "got values in nan"),
    ],
)
def test_what_does_not_fit_the_spec_is_refused(image, values, message):
    with pytest.raises(ValueError, match=message):
        overlay(image, values, red_net()[0])


def test_an_image_that_is_too_small_has_no_map():
    model = SqueezeNet((None, None, 3), weights=None)
    assert class_map(model, np.zeros((21, 21, 3)), 0).shape == (1, 1)
    with pytest.raises(ValueError, match=r"too small for this network.*got \(20, 20, 3\)"):
        class_map(model, np.zeros((20, 20, 3)), 0)


def test_a_picture_that_was_not_prepared_is_refused():
    _, model = red_net()
    with pytest.raises(ValueError, match="uint8 is a picture's own type: give what prepare_images returns"):
        class_map(model, grey_with_red(95, 95, 40, 40))
    with pytest.warns(UserWarning, match=r"got values in 20\.\.250, as in a picture that was not prepared"):
        class_map(model, grey_with_red(95, 95, 40, 40).astype(np.float32))


def test_a_model_that_prepares_images_takes_pictures(recwarn):
    images = keras.Input((95, 95, 3))
    model = SqueezeNet(weights=None, classes=2, input_tensor=keras.layers.Rescaling(1 / 255)(images))
    recwarn.clear()
    assert class_map(model, grey_with_red(95, 95, 40, 40)).ndim == 2
    assert not recwarn.list


def test_channels_first_says_how_the_image_is_made():
    spec, _ = red_net()
    keras.config.set_image_data_format("channels_first")
    try:
        model = build(spec)
        with pytest.raises(ValueError, match=r"it is np\.moveaxis\(image, -1, -3\) of what prepare_images returns"):
            class_map(model, np.zeros((95, 95, 3)))
    finally:
        keras.config.set_image_data_format("channels_last")


def test_other_things_than_a_model_and_its_spec_are_refused():
    with pytest.raises(ValueError, match=r"model must be a Keras model, got str; sqz_keras\.load makes one"):
        class_map("imagenet", np.zeros((95, 95, 3)))
    with pytest.raises(ValueError, match=r"got 'photo.jpg'; prepare_images\(read_image\(path\), spec\) makes it"):
        class_map(red_net()[1], "photo.jpg")
    with pytest.raises(ValueError, match=r"spec must be a sqz_keras\.ModelSpec, got str: .*resolve_model"):
        overlay(np.zeros((9, 9, 3)), np.zeros((11, 11)), "imagenet")


def test_numbers_that_are_none_are_refused():
    with pytest.raises(ValueError, match="some are NaN or infinite"):
        class_map(red_net()[1], np.full((95, 95, 3), np.nan))


def test_scaled_images_are_warned_about():
    with pytest.warns(UserWarning, match="^overlay .*multiply by 255"):
        overlay(np.full((9, 9, 3), 0.5), np.zeros((11, 11)), red_net()[0])


def test_the_map_of_another_input_size_is_laid_over_with_a_spec_that_says_so():
    spec, _ = red_net()
    larger = dataclasses.replace(spec, input_size=111)
    assert overlay(np.zeros((30, 50, 3)), np.ones((13, 13)), larger).shape == (30, 50, 3)
