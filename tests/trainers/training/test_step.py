import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from sqz_keras import Metaparameters, ModelSpec, Preprocessing, preprocess_input
from sqz_keras.models.squeezenet import build, named_arrays
from trainers.training.config import TrainConfig
from trainers.training.distribute import spread
from trainers.training.schedules import learning_rate
from trainers.training.step import TrainState, make_update

TINY = Metaparameters(8, 4, squeeze_ratio=0.5, num_fire_modules=2, stem_filters=8, stem_kernel=3, pool_after=(1,))
SPEC = ModelSpec(None, None, TINY, classes=10, input_size=16, preprocessing=Preprocessing(resize_to=16))
CONFIG = TrainConfig(SPEC, "digits", max_steps=60, global_batch_size=8, dropout_rate=0.0)


def one_layer(kernel, bias):
    """Logits = x @ kernel + bias under the name that the step looks for: its gradients are known in closed form.

    x is the one pixel of an image.
    """
    inputs = keras.Input((1, 1, 3))
    logits = keras.layers.Dense(4, name="pool10")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Softmax()(logits))
    model.get_layer("pool10").set_weights([kernel, bias])
    return model


def numpy_solver(kernel, bias, batches, rates, config):
    """The rule in float64, written out: Caffe's V = momentum V + rate (gradient + weight_decay W), W = W - V."""
    weights = [kernel.astype(np.float64), bias.astype(np.float64)]
    velocity, losses = [np.zeros_like(weight) for weight in weights], []
    for (x, y, counts), rate in zip(batches, rates, strict=True):
        logits = x.astype(np.float64) @ weights[0] + weights[1]
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        targets = (1 - config.label_smoothing) * np.eye(4)[y] + config.label_smoothing / 4
        losses.append(-(counts[:, None] * targets * np.log(probabilities)).sum() / counts.sum())
        error = (probabilities - targets) * counts[:, None] / counts.sum()
        gradients = [x.T @ error, error.sum(0)]
        norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
        clip = min(1.0, config.clip_norm / norm) if config.clip_norm else 1.0
        gradients = [clip * g + config.weight_decay * w for g, w in zip(gradients, weights, strict=True)]
        velocity = [config.momentum * v + rate * g for v, g in zip(velocity, gradients, strict=True)]
        ahead = [config.momentum * v + rate * g for v, g in zip(velocity, gradients, strict=True)]
        steps = ahead if config.solver == "modern" else velocity
        weights = [w - step for w, step in zip(weights, steps, strict=True)]
    return *weights, losses


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"power": 0.5, "warmup_steps": 5},
        {"solver": "modern"},
        {"label_smoothing": 0.1, "clip_norm": 0.3},
        {"accumulation_steps": 4},
    ],
)
def test_fifty_updates_are_those_of_the_rule(options):
    """To 1e-6; for the authors' solver, the rule is Caffe's."""
    spec = dataclasses.replace(SPEC, preprocessing=Preprocessing(mode="tf", resize_to=16))
    config = dataclasses.replace(CONFIG, model=spec, base_learning_rate=0.05, weight_decay=0.1, **options)
    random = np.random.default_rng(0)
    kernel, bias = random.normal(size=(3, 4)).astype(np.float32), random.normal(size=4).astype(np.float32)
    images = [
        (
            random.uniform(0, 255, (8, 1, 1, 3)).astype(np.float32),
            random.integers(0, 4, 8),
            random.integers(0, 2, 8).astype(np.float32),
        )
        for _ in range(50)
    ]
    batches = [(preprocess_input(rgb, mode="tf")[:, 0, 0], *others) for rgb, *others in images]
    rates = [learning_rate(config, step) for step in range(50)]
    model, strategy = one_layer(kernel, bias), tf.distribute.get_strategy()
    update = make_update(TrainState(model, config, strategy), config, strategy, head_only=False)
    losses = []
    for batch, rate in zip(images, rates, strict=True):
        losses.append(float(update(batch, tf.constant(rate, tf.float32), tf.constant(1.0))[0]))
    expected = numpy_solver(kernel, bias, batches, rates, config)
    for actual, value in zip([*model.get_layer("pool10").get_weights(), losses], expected, strict=True):
        np.testing.assert_allclose(actual, value, rtol=0, atol=1e-6)


def small_batch(size=8):
    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (size, 16, 16, 3)).astype(np.float32)
    return images, random.integers(0, 10, size), np.ones(size, np.float32)


def run(config, strategy=None, steps=3, batch=None, model=None, head_only=False):
    """The state after some updates on one batch, from the same random weights."""
    strategy = strategy or tf.distribute.get_strategy()
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = model or build(SPEC, dropout_rate=config.dropout_rate)
    state = TrainState(model, config, strategy)
    update = make_update(state, config, strategy, head_only)
    batch = spread(tuple(tf.constant(array) for array in batch or small_batch()), strategy)
    result = ()
    for _ in range(steps):
        result = update(batch, tf.constant(1e-3), tf.constant(1.0))
    return state, [float(value) for value in result]


def assert_close(state, other, atol):
    for name, array in state.arrays().items():
        np.testing.assert_allclose(other.arrays()[name], array, rtol=0, atol=atol, err_msg=name)


@pytest.mark.large
def test_slices_and_replicas_change_nothing():
    """One device, accumulation, and two replicas of a mirrored strategy: the same updates up to rounding."""
    state, result = run(CONFIG)
    sliced, result_sliced = run(dataclasses.replace(CONFIG, accumulation_steps=4))
    assert_close(state, sliced, 1e-5)
    np.testing.assert_allclose(result_sliced, result, rtol=1e-5)
    mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert mirrored.num_replicas_in_sync == 2
    for options in ({}, {"accumulation_steps": 2, "ema_decay": 0.5}):
        config = dataclasses.replace(CONFIG, **options)
        spread, result_spread = run(config, mirrored)
        assert_close(run(config)[0] if options else state, spread, 1e-5)
        np.testing.assert_allclose(result_spread, result, rtol=1e-5)


def test_an_image_of_weight_0_does_not_count():
    images, labels, weights = small_batch()
    kept, _ = run(CONFIG, batch=(images[:6], labels[:6], weights[:6]))
    images = images.copy()
    images[6:] = 1e3
    masked, result = run(CONFIG, batch=(images, labels, np.array([1] * 6 + [0] * 2, np.float32)))
    assert_close(kept, masked, 1e-6)
    assert result[2] == 6


def test_the_moving_average_is_what_is_kept():
    config = dataclasses.replace(CONFIG, ema_decay=0.75)
    before = run(config, steps=0)[0].served_arrays()
    after_1 = named_arrays(run(config, steps=1)[0].model)
    state, _ = run(config, steps=2)
    after_2 = named_arrays(state.model)
    for name, average in state.served_arrays().items():
        expected = 0.75 * (0.75 * before[name] + 0.25 * after_1[name]) + 0.25 * after_2[name]
        np.testing.assert_allclose(average, expected, atol=1e-6)
    assert state.served_arrays().keys() == SPEC.weight_shapes().keys()


def test_a_frozen_trunk_stays_as_it_was():
    before = run(CONFIG, steps=0)[0].served_arrays()
    after = run(CONFIG, head_only=True)[0].served_arrays()
    for name in before:
        assert np.array_equal(before[name], after[name]) == (not name.startswith("conv10/")), name


@pytest.fixture(scope="module")
def plain():
    """The loss after the first update, and after 30."""
    return [run(CONFIG, steps=steps)[1][0] for steps in (1, 30)]


@pytest.mark.parametrize("options", [{"precision": "bfloat16"}, {"jit_compile": True}, {"mixup_alpha": 0.2}])
def test_options_train(plain, options):
    """Each lowers the loss on one batch about as the plain net does."""
    config = dataclasses.replace(CONFIG, **options)
    if config.precision == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        _, (loss, _, _) = run(config, steps=30)
    finally:
        keras.config.set_dtype_policy("float32")
    assert loss < plain[0]
    assert abs(loss - plain[1]) < 0.2


def test_dropouts_seed_is_part_of_the_state():
    config = dataclasses.replace(CONFIG, dropout_rate=0.5)
    whole, _ = run(config, steps=4)
    half, _ = run(config, steps=2)
    arrays = half.arrays()
    assert any(name.startswith("seed/") for name in arrays)
    strategy = tf.distribute.get_strategy()
    other = TrainState(build(SPEC, dropout_rate=0.5), config, strategy)
    other.restore(arrays)
    update = make_update(other, config, strategy, head_only=False)
    for _ in range(2):
        update(tuple(map(tf.constant, small_batch())), tf.constant(1e-3), tf.constant(1.0))
    assert_close(whole, other, 1e-6)
    with pytest.raises(ValueError, match="of another run"):
        other.restore({name: array for name, array in arrays.items() if not name.startswith("seed/")})


def test_the_loss_of_an_image_is_multiplied_by_the_weight_of_its_class():
    """A class of weight 2 counts as if each of its images were there twice."""
    images, labels, counts = small_batch()
    labels = labels % 4
    twice = np.concatenate([np.arange(len(labels)), np.flatnonzero(labels == 1)])
    config, strategy = dataclasses.replace(CONFIG, model=SPEC), tf.distribute.get_strategy()
    results = []
    for batch, weights in [((images, labels, counts), [1, 2, 1, 1]), ((images[twice], labels[twice], None), None)]:
        model = one_layer(np.full((3, 4), 0.01, np.float32), np.arange(4, dtype=np.float32))
        batch = (batch[0][:, :1, :1], batch[1], np.ones(len(batch[1]), np.float32))
        update = make_update(
            TrainState(model, config, strategy),
            dataclasses.replace(config, weight_decay=0.0, momentum=0.0),
            strategy,
            head_only=False,
            class_weights=None if weights is None else np.array(weights, np.float32),
        )
        # The update averages over the images, so the same step from a sum over more images needs a higher rate.
        loss, _, count = update(batch, tf.constant(1e-3 * len(batch[1]) / len(labels)), tf.constant(1.0))
        results.append([float(loss) * float(count), *model.get_layer("pool10").get_weights()])
    for weighted, repeated in zip(*results, strict=True):
        np.testing.assert_allclose(weighted, repeated, rtol=1e-5)
