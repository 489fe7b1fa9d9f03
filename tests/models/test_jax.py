"""The builders under the JAX backend: unchanged, without TensorFlow, and equal to the TensorFlow ones."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from sqz_keras import Metaparameters, squeezenet_from_metaparameters
from sqz_keras.models.squeezenet import assign, named_arrays

# Few and narrow fire modules: JAX compiles each operation for each shape.
NET = Metaparameters(base_e=8, incr_e=8, num_fire_modules=3, stem_filters=8, stem_kernel=3, pool_after=(1, 3))
BYPASSES = (None, "simple", "complex")

# Run in a process of its own, since Keras takes its backend when it is imported.
UNDER_JAX = f"""
import sys
from unittest import mock
import keras, numpy as np
from sqz_keras import Metaparameters, ModelSpec, SqueezeNet, class_map, prepare_images, squeezenet_from_metaparameters
from sqz_keras.models.squeezenet import assign, named_arrays

assert keras.backend.backend() == "jax"
folder, inputs = sys.argv[1], np.load(sys.argv[1] + "/inputs.npy")
for number, bypass in enumerate({BYPASSES}):
    options = dict(bypass=bypass, classes=10, classifier_activation=None)
    model = squeezenet_from_metaparameters(
        {NET}, (32, 32, 3), weights=f"{{folder}}/{{number}}.weights.h5", **options
    )
    np.save(f"{{folder}}/{{number}}.jax.npy", model(inputs))
    keras.config.set_image_data_format("channels_first")
    first = squeezenet_from_metaparameters({NET}, (3, 32, 32), **options)
    assign(first, named_arrays(model))
    np.testing.assert_allclose(first(inputs.transpose(0, 3, 1, 2)), model(inputs), atol=1e-4)
    maps = class_map(model, inputs[0], 3), class_map(first, inputs[0].transpose(2, 0, 1), 3)
    np.testing.assert_allclose(*maps, atol=1e-4)
    assert abs(maps[0].mean() - model(inputs)[0, 3]) < 1e-4
    keras.config.set_image_data_format("channels_last")
assert prepare_images(np.zeros((2, 30, 40, 3), np.uint8), ModelSpec()).shape == (2, 227, 227, 3)
model.compile("sgd", "mse")
model.fit(inputs, np.zeros((2, 10)), verbose=0)
# These nets are only counted. Their kernels are zeros, since JAX compiles a random draw for each shape.
zeros = lambda self, shape, dtype=None: np.zeros(shape, dtype)
with mock.patch.object(keras.initializers.VarianceScaling, "__call__", zeros):
    for version in ("1.0", "1.1"):
        for bypass in {BYPASSES}:
            model = SqueezeNet(weights=None, version=version, bypass=bypass)
            assert model.count_params() == ModelSpec(version, bypass).count_params()
assert "tensorflow" not in sys.modules
print("done")
"""


@pytest.mark.large
def test_builders_under_jax(tmp_path):
    rng = np.random.default_rng(0)
    inputs = rng.uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    np.save(tmp_path / "inputs.npy", inputs)
    outputs = []
    for number, bypass in enumerate(BYPASSES):
        model = squeezenet_from_metaparameters(NET, (32, 32, 3), classes=10, bypass=bypass, classifier_activation=None)
        assign(model, {name: rng.normal(0, 0.3, array.shape) for name, array in named_arrays(model).items()})
        model.save_weights(tmp_path / f"{number}.weights.h5")
        outputs.append(model(inputs))
    env = os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    result = subprocess.run(
        [sys.executable, "-c", UNDER_JAX, tmp_path], env=env, capture_output=True, text=True, check=False
    )
    assert result.stdout.endswith("done\n"), result.stderr
    for number, expected in enumerate(outputs):
        np.testing.assert_allclose(np.load(tmp_path / f"{number}.jax.npy"), expected, rtol=0, atol=1e-4)
        assert np.abs(expected).max() > 1e-3
