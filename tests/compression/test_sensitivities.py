"""Sensitivities, compared with GradientTape on the weights themselves."""

import numpy as np
import pytest

from sqz_keras.compression.activations import convolutions
from sqz_keras.compression.sensitivities import divergences, sensitivities
from sqz_keras.models.squeezenet import build
from tests.compression.tiny_net import SPEC, tiny_images


@pytest.fixture(scope="module")
def model(pruned):
    return build(SPEC, pruned)


def test_sensitivity_is_the_mean_squared_derivative(model):
    import tensorflow as tf

    images = tiny_images(3)[0]
    actual = sensitivities(model, images)
    squares = {}
    drawn = tf.random.stateless_categorical(tf.math.log(model(images) + 1e-20), 1, (0, 0))[:, 0]
    for image, label in zip(images, drawn, strict=True):
        with tf.GradientTape() as tape:
            chosen = tf.math.log(model(image[None])[0, label])
        variables = [variable.value for layer in convolutions(model) for variable in layer.weights]
        names = [f"{layer.name}/{kind}" for layer in convolutions(model) for kind in ("kernel", "bias")]
        for name, variable, gradient in zip(names, variables, tape.gradient(chosen, variables), strict=True):
            kept = (variable.numpy() != 0) | name.endswith("bias")
            squares.setdefault(name, []).append(np.mean(gradient.numpy()[kept] ** 2))
    assert list(actual) == list(squares)
    for name, values in squares.items():
        np.testing.assert_allclose(actual[name], np.mean(values), rtol=1e-3, err_msg=name)


def test_divergence_of_a_small_change(model):
    """The estimate for one layer's change is near the actual divergence; it draws classes, so it needs many images."""
    images = tiny_images(400, seed=7)[0]
    arrays = {
        f"{layer.name}/{kind}": weights
        for layer in convolutions(model)
        for kind, weights in zip(("kernel", "bias"), layer.get_weights(), strict=True)
    }
    random = np.random.default_rng(8)
    changed = {
        name: array + (0.02 * random.normal(size=array.shape)).astype(np.float32) for name, array in arrays.items()
    }
    before = model.predict(images, verbose=0)
    for layer, estimate in divergences(model, changed, images).items():
        only = {name: changed[name] if name.startswith(f"{layer}/") else array for name, array in arrays.items()}
        after = build(SPEC, only).predict(images, verbose=0)
        actual = np.mean(np.sum(before * np.log(before / after), axis=1))
        assert estimate == pytest.approx(actual, rel=0.5), layer
