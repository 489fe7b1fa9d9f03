import gc

import numpy as np
import tensorflow as tf

from sqz_keras.compression.teacher import teach
from sqz_keras.models.squeezenet import build
from tests.compression.tiny_net import SPEC, tiny_images


def test_the_targets_are_the_nets_probabilities(arrays):
    images, _ = tiny_images()
    taught = teach(tf.data.Dataset.from_tensor_slices(images).batch(8).repeat(), SPEC, arrays)
    gc.collect()  # the dataset must keep the net alive
    for place, (inputs, targets) in enumerate(taught.take(4)):
        mine = images[8 * place : 8 * place + 8]
        np.testing.assert_array_equal(inputs, mine)
        np.testing.assert_allclose(targets, build(SPEC, arrays).predict_on_batch(mine), rtol=0, atol=1e-6)


def test_labels_are_replaced_and_sample_weights_kept(arrays):
    images, labels = tiny_images(8)
    weights = np.arange(8, dtype=np.float32)
    taught = teach(tf.data.Dataset.from_tensors((images, labels, weights)), SPEC, arrays)
    _, targets, kept = next(iter(taught))
    np.testing.assert_allclose(np.sum(targets, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(kept, weights)
