"""Resizing in numpy gives the same as resizing in Keras."""

import numpy as np
import pytest

from sqz_keras import ModelSpec, Preprocessing
from sqz_keras.images import preprocessing, resizing


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("resize", ["stretch", "shortest_side"])
@pytest.mark.parametrize("shape", [(300, 500), (500, 300), (40, 31), (256, 256), (1, 2), (1200, 90)])
def test_it_is_keras_s(shape, resize, antialias):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    spec = ModelSpec(preprocessing=Preprocessing(resize=resize, antialias=antialias))
    expected = np.asarray(preprocessing.resize_and_crop(image, spec))
    actual = resizing.resize_and_crop(image, spec)
    assert actual.dtype == np.float32 and actual.shape == (227, 227, 3)
    np.testing.assert_allclose(actual, expected, atol=0.02)
