"""Statistics of activations, against convolutions computed by hand."""

import numpy as np
import pytest

from sqz_keras.compression.activations import input_moments
from sqz_keras.compression.layer_inputs import LayerInputs
from sqz_keras.models.squeezenet import build
from tests.compression.tiny_net import SPEC, tiny_arrays, tiny_images


@pytest.fixture(scope="module")
def model(pruned):
    return build(SPEC, pruned)


@pytest.mark.parametrize("layer", ["conv1", "fire2_squeeze1x1", "fire2_expand3x3", "conv10"])
def test_moments_give_the_mean_outputs(model, layer):
    """The mean and mean square of a convolution's outputs follow from the moments of its inputs."""
    import keras

    changed = build(SPEC, {name: array * 0.9 for name, array in tiny_arrays(SPEC).items()})
    images = tiny_images(12, seed=5)[0]
    kernels = [network.get_layer(layer).get_weights()[0] for network in (model, changed)]
    before, inputs = (LayerInputs(network, SPEC.layers(), images).of(layer) for network in (model, changed))
    convolution = changed.get_layer(layer)
    moments = input_moments(inputs, convolution, kernels[0], before)
    outputs = []
    for network, kernel in zip((model, changed), kernels, strict=True):
        inputs = keras.Model(network.inputs, network.get_layer(layer).input).predict(images, verbose=0)
        options = {"strides": convolution.strides, "padding": convolution.padding}
        outputs.append(np.asarray(keras.ops.conv(inputs, kernel, **options), np.float64))
    before, after = outputs
    weights, axes = kernels[1].reshape(len(moments.inputs), -1), (0, 1, 2)
    np.testing.assert_allclose(moments.mean_target, before.mean(axes), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(moments.mean_input @ weights, after.mean(axes), rtol=1e-4, atol=1e-5)
    squares = np.einsum("ko,kl,lo->o", weights, moments.inputs, weights)
    np.testing.assert_allclose(squares, (after**2).mean(axes), rtol=1e-4, atol=1e-6)
    products = np.einsum("ko,ko->o", weights, moments.targets)
    np.testing.assert_allclose(products, (before * after).mean(axes), rtol=1e-4, atol=1e-6)


def test_moments_in_one_network(model):
    """Without another network's inputs, the targets follow from the moments of the inputs."""
    images, convolution = tiny_images(12, seed=5)[0], model.get_layer("fire2_expand3x3")
    inputs, kernel = LayerInputs(model, SPEC.layers(), images).of(convolution.name), convolution.get_weights()[0]
    alone = input_moments(inputs, convolution, kernel)
    for actual, expected in zip(alone, input_moments(inputs, convolution, kernel, inputs), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


def test_moments_of_many_positions_are_those_of_a_sample(model):
    """The sample here is every third row and column of 60 x 60."""
    import keras

    inputs = keras.Input((60, 60, 2))
    convolution = keras.layers.Conv2D(3, 1)
    convolution(inputs)
    images = np.random.default_rng(6).normal(size=(4, 60, 60, 2)).astype(np.float32)
    moments = input_moments([images], convolution, convolution.get_weights()[0])
    sample = images[:, ::3, ::3].reshape(-1, 2)
    np.testing.assert_allclose(moments.inputs, sample.T @ sample / len(sample), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(moments.mean_input, sample.mean(axis=0), rtol=1e-4, atol=1e-6)
