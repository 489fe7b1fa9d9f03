import keras
import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is no dependency; it takes part in benchmarks where it is installed")

from benchmarks.torch_network import torch_network
from sqz_keras import Metaparameters, ModelSpec
from sqz_keras.architecture.spec import Preprocessing
from sqz_keras.models.squeezenet import build, named_arrays


@pytest.mark.parametrize("bypass", [None, "simple", "complex"])
def test_it_is_keras_network(bypass):
    net = Metaparameters(base_e=8, incr_e=8, num_fire_modules=3, stem_filters=8, stem_kernel=3, pool_after=(1, 3))
    options = {"conv10_padding": 1, "input_size": 34, "preprocessing": Preprocessing(resize_to=40)}
    spec = ModelSpec(None, bypass, net, classes=5, **options)
    keras.utils.set_random_seed(0)
    arrays = named_arrays(build(spec))
    arrays["conv10/kernel"] *= 5 if bypass is None else 0.5  # so that the probabilities differ, and none is 1
    arrays["conv10/bias"] += 1
    inputs = np.random.default_rng(0).normal(0, 60, (3, 34, 34, 3)).astype(np.float32)
    expected = build(spec, arrays).predict_on_batch(inputs)
    assert np.ptp(expected, axis=0).max() > 5e-4
    np.testing.assert_allclose(torch_network(spec, arrays)(inputs), expected, atol=1e-5)
