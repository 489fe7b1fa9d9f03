"""A compressed model is served like any other: sqz-export takes the `.sqz` file, and the answers are the model's."""

import os

import numpy as np
import tensorflow as tf

from export import export as saved_model
from sqz_keras import codec, load, prepare_images, resolve_model
from sqz_keras.compression.kmeans import kmeans
from sqz_keras.weights import sqz
from tests.export.samples import encode, random_image


def test_a_compressed_model_is_served_as_it_predicts(spec, arrays, tmp_path, run_command, in_this_process):
    path = tmp_path / "model.sqz"
    shared = kmeans(arrays, 4)
    path.write_bytes(codec.encode(shared, sqz.header(spec, shared, {"stages": []})))
    run_command(saved_model, f"--model={path}", f"--base_path={tmp_path / 'served'}", "--model_version=1")
    served = tf.saved_model.load(os.fspath(tmp_path / "served" / "1"))
    pil_images = [random_image(50, 40, seed=seed) for seed in (1, 2)]
    images = np.stack([np.asarray(image) for image in pil_images])
    expected = load(path).predict_on_batch(prepare_images(images, spec))
    floats = served.signatures["serving_default"](images=tf.constant(images, tf.float32))
    np.testing.assert_allclose(floats["probabilities"], expected, atol=1e-5)
    files = served.signatures["serve_bytes"](image_bytes=tf.constant([encode(image, "PNG") for image in pil_images]))
    np.testing.assert_allclose(files["probabilities"], expected, atol=1e-5)
    again = resolve_model(tmp_path / "served" / "1")[1]
    for name, array in shared.items():
        np.testing.assert_array_equal(again[name], array)
