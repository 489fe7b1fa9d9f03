import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from sqz_keras.compression import tf_keras_bridge as bridge
from sqz_keras.models.squeezenet import build, named_arrays
from tests.compression.tiny_net import SPEC, TINY, tiny_arrays, tiny_images


@pytest.mark.parametrize("bypass, padding", [(None, 0), ("complex", 1), ("simple", 0)])
def test_there_and_back_is_the_same_net(bypass, padding):
    net = dataclasses.replace(TINY, stem_filters=16) if bypass == "simple" else TINY
    spec = dataclasses.replace(SPEC, metaparameters=net, bypass=bypass, conv10_padding=padding)
    arrays = tiny_arrays(spec)
    model = build(spec, arrays)
    twin = bridge.to_tf_keras(model)
    back = bridge.to_keras(twin)
    images, _ = tiny_images()
    expected = model.predict_on_batch(images)
    assert expected.std() > 0.01
    np.testing.assert_allclose(twin.predict_on_batch(images), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(back.predict_on_batch(images), expected, rtol=0, atol=1e-6)
    assert [layer.name for layer in back.layers] == [layer.name for layer in model.layers]
    assert isinstance(back, keras.Model) and not isinstance(twin, keras.Model)
    for there in (named_arrays(twin), named_arrays(back)):
        assert there.keys() == arrays.keys()
        assert all(np.array_equal(there[name], arrays[name]) for name in arrays)


def test_the_twin_has_weights_of_its_own(arrays):
    model = build(SPEC, arrays)
    twin = bridge.to_tf_keras(model)
    twin.get_layer("conv1").set_weights([0 * array for array in twin.get_layer("conv1").get_weights()])
    np.testing.assert_array_equal(model.get_layer("conv1").get_weights()[0], arrays["conv1/kernel"])


def test_dropout_crosses(arrays):
    twin = bridge.to_tf_keras(build(SPEC, arrays, dropout_rate=0.25))
    assert twin.get_layer("drop9").rate == 0.25


def test_refusals_name_the_mistake(arrays):
    twin = bridge.to_tf_keras(build(SPEC, arrays))
    with pytest.raises(ValueError, match="takes a Keras 3 model, got a tf_keras Functional"):
        bridge.to_tf_keras(twin)
    with pytest.raises(ValueError, match="takes a tf_keras model, got a keras Functional"):
        bridge.to_keras(build(SPEC, arrays))
    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match="Layer head is a Dense"):
        bridge.to_tf_keras(keras.Model(inputs, keras.layers.Dense(2, name="head")(inputs)))


def test_probabilities_are_learnt_at_a_higher_temperature(arrays):
    """The loss is 16 KL(softmax(z / 4) || softmax(z' / 4)), for a teacher that is sure and a student that is not."""
    images, labels = tiny_images(8)
    logits = np.where(np.arange(4) == labels[:, None], 30.0, np.arange(4))
    batches = tf.data.Dataset.from_tensors((images, np.exp(log_softmax(logits)).astype(np.float32))).repeat()
    model = build(SPEC, arrays, dropout_rate=0)
    reports = []
    bridge.train(
        bridge.to_tf_keras(model), batches, steps=10, learning_rate=1e-9, report=lambda *values: reports.append(values)
    )
    teacher, student = (log_softmax(scores / 4) for scores in (logits, np.log(model.predict_on_batch(images))))
    expected = 16 * np.mean(np.sum(np.exp(teacher) * (teacher - student), axis=1))
    assert reports == [(10, 10, pytest.approx(expected, rel=1e-4))]


def log_softmax(logits):
    return logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))
