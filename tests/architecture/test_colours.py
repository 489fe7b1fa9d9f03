"""The arithmetic of colours matches `preprocess_input`, also when it is folded into conv1."""

import numpy as np
import pytest

from sqz_keras import preprocess_input
from sqz_keras.architecture.colours import COLOURS, fold_colours
from sqz_keras.architecture.spec import PREPROCESSING_MODES
from sqz_keras.models import squeezenet
from tests.runtimes.nets import coloured_net, keras_answers, random_images, telling_arrays


def test_every_mode_has_its_colours():
    assert sorted(COLOURS) == sorted(PREPROCESSING_MODES)


@pytest.mark.parametrize("mode", list(COLOURS))
def test_colours(mode):
    spec = coloured_net(mode)
    arrays, images = telling_arrays(spec), random_images(spec)
    order, scale, shift = COLOURS[mode]
    np.testing.assert_allclose(images[..., list(order)] * scale + shift, preprocess_input(images, mode=mode), atol=1e-4)
    folded = squeezenet.build(spec, fold_colours(spec, arrays)).predict_on_batch(images)
    np.testing.assert_allclose(folded, keras_answers(spec, arrays, images), atol=1e-5)
