"""The exported arrangement of the network computes what the model does, in every variant."""

import numpy as np
import pytest
import tensorflow as tf

from export import contract
from export.graph import tiles
from export.graph.network import ExportedNetwork
from export.graph.signatures import ServedModel
from sqz_keras import Metaparameters, ModelSpec, Preprocessing, prepare_images, resolve_model
from sqz_keras.images.files import read_image
from sqz_keras.models import squeezenet
from tests.export.samples import random_arrays, random_image, small_spec

SMALL = Preprocessing(resize_to=72)
CUSTOM = Metaparameters(
    num_fire_modules=3, base_e=16, incr_e=16, freq=2, pct_3x3=0.25, stem_filters=16, pool_after=(2, 4)
)
SPECS = {
    f"{version}, {bypass}": ModelSpec(version, bypass, classes=20, input_size=64, preprocessing=SMALL)
    for version in ("1.0", "1.1")
    for bypass in (None, "simple", "complex")
} | {
    f"custom, {bypass}": ModelSpec(
        None, bypass, CUSTOM, classes=3, input_size=61, preprocessing=SMALL, conv10_padding=padding
    )
    for bypass, padding in ((None, 2), ("simple", 0), ("complex", 1))
}


@pytest.fixture(scope="module")
def labels_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("labels") / contract.LABELS_NAME
    path.write_text("not read by the graph\n")
    return path


def arrays_that_tell_images_apart(spec, inputs):
    """Random weights that give probabilities neither saturated nor all alike, whatever the bypasses add up to."""
    arrays = random_arrays(spec)
    _, features = ExportedNetwork(spec, arrays)(tf.constant(inputs))
    spread = np.ptp(features.numpy() @ arrays["conv10/kernel"][0, 0], axis=0).max()
    return arrays | {"conv10/kernel": arrays["conv10/kernel"] * np.float32(3 / spread)}


@pytest.mark.parametrize("name", SPECS)
def test_every_variant_is_served_as_it_predicts(name, labels_path):
    spec, count = SPECS[name], 10  # more than are computed at once
    images = np.stack([np.asarray(random_image(80, 70, seed=seed), np.float32) for seed in range(count)])
    inputs = np.asarray(prepare_images(images, spec))
    arrays = arrays_that_tell_images_apart(spec, inputs)
    expected = squeezenet.build(spec, arrays).predict(inputs, batch_size=4, verbose=0)
    served = ServedModel(spec, arrays, labels_path)
    actual = served.serving_default(tf.constant(images))["probabilities"]
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 1e-2, "the images must differ"


class ListedNetwork(ExportedNetwork):
    """Records, for each convolution, what the list of layers says about convolutions."""

    def __init__(self, spec, arrays):
        super().__init__(spec, arrays)
        self.convolutions = {}

    def _conv_relu(self, weights, halves, layer, strides=1, padding="VALID"):
        output = super()._conv_relu(weights, halves, layer, strides, padding)
        channels = sum(half.shape[-1] for half in halves)
        self.convolutions[layer] = (channels, strides, padding == [[0, 0], [1, 1], [1, 1], [0, 0]], *output.shape[1:])
        return output


@pytest.mark.parametrize("name", SPECS)
def test_the_convolutions_are_those_of_the_list_of_layers(name):
    spec = SPECS[name]
    network = ListedNetwork(spec, random_arrays(spec))
    network(tf.zeros((1, spec.input_size, spec.input_size, 3)))
    expected = {}
    for layer in spec.layers():
        if layer.kind == "convolution":
            # conv10's border of zeros is summed separately.
            border = 2 * spec.conv10_padding if layer.name == "conv10" else 0
            size = layer.size - border
            same = layer.padding > 0 and not border
            expected[layer.name] = (layer.input_channels, layer.stride, same, size, size, layer.channels)
    assert network.convolutions == expected


@pytest.mark.parametrize("size", range(24, 40))
def test_every_input_size_pools_as_caffe_does(size):
    """There are odd and even maps before each pool."""
    spec = small_spec(metaparameters=Metaparameters(2, 0, num_fire_modules=3, stem_kernel=3, pool_after=(1, 2, 3)),
                      input_size=size, preprocessing=Preprocessing(resize_to=size))  # fmt: skip
    arrays = random_arrays(spec)
    images = np.random.default_rng(size).normal(0, 60, (2, size, size, 3)).astype(np.float32)
    probabilities, _ = ExportedNetwork(spec, arrays)(tf.constant(images))
    np.testing.assert_allclose(probabilities, squeezenet.build(spec, arrays)(images), atol=1e-5)


@pytest.mark.parametrize("bypass", [None, "simple", "complex"])
@pytest.mark.parametrize("size", [70, 72, 74, 76])
def test_two_tiles_are_as_the_whole(size, bypass):
    """There are odd and even maps before each pool, and windows that reach across the cut from both sides."""
    net = Metaparameters(8, 8, 2, squeeze_ratio=0.5, num_fire_modules=4, stem_kernel=3, pool_after=(1, 3))
    spec = ModelSpec(None, bypass, net, classes=3, input_size=size, preprocessing=Preprocessing(resize_to=size))
    network = ExportedNetwork(spec, random_arrays(spec))
    images = np.random.default_rng(size).normal(0, 60, (2, size, size, 3)).astype(np.float32)
    actual = network(tf.constant(images))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "_TILES", 1)
        whole = network(tf.constant(images))
    for tiled, expected in zip(actual, whole, strict=True):
        np.testing.assert_allclose(tiled, expected, rtol=1e-5, atol=1e-6)
    assert np.ptp(actual[1], axis=0).max() > 1e-2, "the images must differ"


def test_tiles_cover_the_maps_with_the_rows_that_pools_need():
    assert [stage.rows for stage in tiles.divide([111, 55, 27, 13])] == [
        ((0, 55), (48, 111)),
        ((0, 27), (24, 55)),
        ((0, 13), (12, 27)),
        ((0, 6), (6, 13)),
    ]
    assert [stage.rows for stage in tiles.divide([15, 7])] == [((0, 15),), ((0, 7),)], "too small to divide"


def test_bfloat16_is_close_and_unknown_precisions_are_refused(labels_path):
    spec = small_spec()
    arrays = random_arrays(spec)
    images = tf.constant(np.stack([np.asarray(random_image(50, 40, seed=seed), np.float32) for seed in range(4)]))
    models = [ServedModel(spec, arrays, labels_path, precision) for precision in contract.PRECISIONS]
    exact, coarse = (model.serving_default(images)["probabilities"] for model in models)
    assert coarse.dtype == tf.float32
    difference = np.abs(exact - coarse).max()
    assert 1e-6 < difference < 0.05
    with pytest.raises(ValueError, match="bfloat16"):
        ServedModel(spec, arrays, labels_path, "float16")


def test_real_weights_name_the_same_classes_on_images(test_data, labels_path):
    """The authors' v1.0, whose conv10 has a border, on whole image files."""
    spec, arrays = resolve_model(test_data / "weights" / "deep_compression" / "compressed_SqueezeNet.net")
    served = ServedModel(spec, arrays, labels_path)
    paths = sorted((test_data / "images" / "imagenet_sample").iterdir())[:20]
    outputs = served.serve_bytes(tf.constant([path.read_bytes() for path in paths]))
    inputs = np.stack([prepare_images(read_image(path), spec) for path in paths])
    expected = squeezenet.build(spec, arrays).predict(inputs, verbose=0)
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-5)
    np.testing.assert_array_equal(outputs["class_ids"][:, 0], expected.argmax(1))
    assert expected.max() > 0.9
