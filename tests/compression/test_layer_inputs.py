import keras
import numpy as np
import pytest

from sqz_keras import ModelSpec
from sqz_keras.compression.activations import convolutions
from sqz_keras.compression.layer_inputs import LayerInputs
from sqz_keras.models.squeezenet import build
from tests.compression.tiny_net import TINY, tiny_arrays, tiny_images


@pytest.mark.parametrize("bypass", [None, "complex"])
def test_inputs_are_those_of_the_weights_so_far(bypass):
    spec = ModelSpec(None, metaparameters=TINY, bypass=bypass, classes=4, input_size=33)
    model, images = build(spec, tiny_arrays(spec)), tiny_images(12)[0]
    inputs = LayerInputs(model, spec.layers(), images)
    for layer in convolutions(model):
        actual = np.concatenate(inputs.of(layer.name))
        expected = keras.Model(model.inputs, layer.input).predict(images, verbose=0)
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6, err_msg=layer.name)
        layer.set_weights([weights * np.float32(0.9) for weights in layer.get_weights()])
