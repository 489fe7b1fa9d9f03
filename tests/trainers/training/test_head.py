"""conv10 fitted to features: against a random one, against its own linear form, and near pretrained weights."""

import dataclasses

import keras
import numpy as np
import pytest

from sqz_keras import Metaparameters, ModelSpec, Preprocessing
from sqz_keras.models.squeezenet import assign, build, named_arrays
from trainers.data.batches import evaluation_batches
from trainers.training import head

TINY = Metaparameters(16, 16, squeeze_ratio=0.5, num_fire_modules=2, stem_filters=16, stem_kernel=3, pool_after=(1,))


SPEC = ModelSpec(None, None, TINY, classes=10, input_size=16, preprocessing=Preprocessing(resize_to=16))


@pytest.fixture(scope="module")
def unseen(digits):
    """355 images that are not trained on, and their labels."""
    images, labels, _ = next(iter(evaluation_batches(digits, "test", SPEC, batch_size=355)))
    return images, labels.numpy()


@pytest.fixture(scope="module")
def batches(digits):
    return list(evaluation_batches(digits, "train", SPEC, batch_size=64).take(8))


@pytest.fixture(scope="module", params=[0, 1])
def fitted(request, batches, unseen):
    """A random network for the digits, with conv10 fitted: the model, its accuracy before, and the fit's results."""
    keras.utils.set_random_seed(0)
    model = build(dataclasses.replace(SPEC, conv10_padding=request.param))
    before = evaluate(model, *unseen)
    arrays, loss, accuracy = head.fit_head(model, iter(batches))
    assign(model, arrays)
    return model, before, loss, accuracy


def evaluate(model, images, labels):
    """The share of correct answers."""
    return float((model.predict_on_batch(images).argmax(1) == labels).mean())


def test_a_fitted_head_knows_pictures_that_a_random_one_does_not(fitted, unseen):
    model, before, loss, accuracy = fitted
    assert before < 0.2 and evaluate(model, *unseen) > 0.3
    assert accuracy > 0.35 and 0 < loss < np.log(10)


def linear_probabilities(model, images):
    """What the network would answer if conv10 had no ReLU."""
    features = keras.Model(model.input, model.get_layer("conv10").input)(images).numpy().mean(axis=(1, 2))
    arrays = named_arrays(model)
    logits = features @ arrays["conv10/kernel"][0, 0] + arrays["conv10/bias"]
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_the_relu_hardly_changes_what_a_linear_layer_would_answer(fitted, unseen):
    model, images = fitted[0], unseen[0]
    expected, probabilities = linear_probabilities(model, images), model.predict_on_batch(images)
    np.testing.assert_allclose(probabilities, expected, atol=0.1)
    assert (probabilities.argmax(1) == expected.argmax(1)).mean() > 0.9
    maps = keras.Model(model.input, model.get_layer("conv10").output)(images).numpy()
    assert 0.001 < (maps == 0).mean() < 0.03


def test_a_relu_that_cuts_nothing_off_changes_no_answer(monkeypatch):
    monkeypatch.setattr(head, "_CUT_OFF", 0)
    spec, random = ModelSpec(None, None, TINY, classes=3, input_size=16), np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    model, images = build(spec), random.uniform(-100, 100, (12, 16, 16, 3)).astype(np.float32)
    assign(model, head.fit_head(model, [(images, np.arange(12) % 3, np.ones(12))])[0])
    probabilities = model.predict_on_batch(images)
    assert np.ptp(probabilities) > 0.1
    np.testing.assert_allclose(probabilities, linear_probabilities(model, images), atol=1e-4)


def test_what_is_no_image_does_not_count():
    spec = ModelSpec(None, None, TINY, classes=2, input_size=16)
    keras.utils.set_random_seed(0)
    model, random = build(spec), np.random.default_rng(0)
    images, labels = random.uniform(-100, 100, (12, 16, 16, 3)).astype(np.float32), np.arange(12) % 2
    counts = np.float32([1] * 9 + [0] * 3)
    expected, *_ = head.fit_head(model, [(images[:9], labels[:9], counts[:9])])
    arrays, *_ = head.fit_head(model, [(np.where(counts[:, None, None, None], images, images[:1]), labels, counts)])
    np.testing.assert_allclose(arrays["conv10/kernel"], expected["conv10/kernel"], atol=1e-4)
    with pytest.raises(ValueError, match="no image"):
        head.fit_head(model, [(images, labels, 0 * counts)])


def test_the_fit_stays_near_its_start_and_minds_weights():
    random = np.random.default_rng(0)
    features = random.normal(size=(40, 3)).astype(np.float32)
    start, one = random.normal(size=(3, 4)), np.ones(40)
    labels = (features @ start).argmax(axis=1)
    kernel, _ = head.fit(features, labels, start, one)
    from_zero, _ = head.fit(features, labels, 0 * start, one)
    assert np.abs(kernel - start).max() < 0.5 < np.abs(from_zero - start).max()
    weights = np.where(np.arange(40) < 10, 2.0, 1.0)
    copies = np.r_[0:40, 0:40, 0:10, 0:10]  # two or four copies of a row share its weight
    halves = np.r_[np.full(80, 0.5), np.full(20, 0.5)]
    for once, again in zip(
        head.fit(features, labels, start, weights),
        head.fit(features[copies], labels[copies], start, halves),
        strict=True,
    ):
        np.testing.assert_allclose(again, once, atol=0.05)
