"""What docs/models.md says of Keras itself. When a test fails here, Keras has changed: correct the sentence there."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from sqz_keras import Metaparameters, squeezenet_from_metaparameters

NET = Metaparameters(
    base_e=8, incr_e=8, squeeze_ratio=0.5, num_fire_modules=2, stem_filters=8, stem_kernel=3, pool_after=(1,)
)
SIZE = (32, 32, 3)


def network():
    keras.utils.set_random_seed(0)
    net = squeezenet_from_metaparameters(NET, SIZE, classes=10, classifier_activation=None)
    kernel, bias = net.get_layer("conv10").get_weights()
    net.get_layer("conv10").set_weights([np.abs(kernel), bias])  # no class is 0 for every image
    return net


def exported_twice(model, folder):
    """The exported model's answers in two calls with the same images, none of them 0, and the images."""
    model.export(folder, verbose=False)
    loaded = tf.saved_model.load(folder)
    images = np.random.default_rng(0).uniform(-120, 140, (4, *SIZE)).astype(np.float32)
    answers = [loaded.serve(images).numpy() for _ in range(2)]
    assert np.min(answers) > 0
    return answers, images


@pytest.mark.parametrize("layer", [keras.layers.RandomFlip, lambda: keras.layers.Resizing(32, 32)])
def test_preprocessing_layers_before_a_nested_model_leave_its_dropout_on(layer, tmp_path):
    net = network()
    (first, second), images = exported_twice(keras.Sequential([keras.Input(SIZE), layer(), net]), tmp_path)
    assert np.abs(first - second).max() > 1e-3
    (first, second), _ = exported_twice(net, tmp_path / "alone")
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, net.predict(images, verbose=0), rtol=1e-4)


def test_training_false_turns_the_dropout_off(tmp_path):
    """This is the guide's way to export a model that contains a Resizing."""
    net, inputs = network(), keras.Input(SIZE)
    model = keras.Model(inputs, net(keras.layers.Resizing(32, 32)(inputs), training=False))
    (first, second), images = exported_twice(model, tmp_path)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, net.predict(images, verbose=0), rtol=1e-4)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
def test_quantize_leaves_every_convolution_in_float32():
    model = keras.Sequential([network(), keras.layers.Dense(5)])
    convolutions = [layer for layer in model.layers[0].layers if isinstance(layer, keras.layers.Conv2D)]
    before = [layer.get_weights() for layer in convolutions]
    model.quantize("int8")
    assert "int8" in model.layers[-1].dtype_policy.name
    assert {layer.dtype_policy.name for layer in convolutions} == {"float32"}
    for layer, arrays in zip(convolutions, before, strict=True):
        np.testing.assert_array_equal(layer.get_weights()[0], arrays[0])
