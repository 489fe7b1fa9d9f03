import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from sqz_keras import Metaparameters, ModelSpec, Preprocessing, load, resolve_model
from sqz_keras.squeezenet import assign, build, named_arrays
from trainers import loop
from trainers.config import TrainConfig
from trainers.input_pipeline import evaluation_batches
from trainers.schedules import poly_decay

TINY = Metaparameters(base_e=8, incr_e=4, num_fire_modules=2, stem_filters=8, stem_kernel=3, pool_after=(1,))
SPEC = ModelSpec(None, None, TINY, classes=10, input_size=16, preprocessing=Preprocessing(resize_to=16))
CONFIG = TrainConfig(
    model=SPEC,
    dataset="digits",
    max_steps=6,
    base_learning_rate=1e-3,
    global_batch_size=32,
    conv10_stddev=0.05,
    shuffle_buffer_size=2_000,
    eval_every_steps=4,
)


def _one_layer(kernel, bias):
    """Logits = x @ kernel + bias under the name that the step looks for: its gradients are known in closed form."""
    inputs = keras.Input((3,))
    logits = keras.layers.Dense(4, name="pool10")(inputs)
    model = keras.Model(inputs, keras.layers.Softmax()(logits))
    model.get_layer("pool10").set_weights([kernel, bias])
    return model


def _caffe(kernel, bias, batches, rates, momentum, weight_decay):
    """Caffe's SGDSolver in float64, V = momentum V + rate (gradient + weight_decay W), W = W - V; and the losses."""
    kernel, bias = kernel.astype(np.float64), bias.astype(np.float64)
    velocity, losses = [np.zeros_like(kernel), np.zeros_like(bias)], []
    for (x, y), rate in zip(batches, rates, strict=True):
        logits = x.astype(np.float64) @ kernel + bias
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        losses.append(-np.log(probabilities[np.arange(len(y)), y]).mean())
        error = (probabilities - np.eye(4)[y]) / len(y)
        gradients = [x.T @ error + weight_decay * kernel, error.sum(0) + weight_decay * bias]
        velocity = [momentum * v + rate * g for v, g in zip(velocity, gradients, strict=True)]
        kernel, bias = kernel - velocity[0], bias - velocity[1]
    return kernel, bias, losses


def test_updates_are_those_of_caffes_solver():
    random = np.random.default_rng(0)
    kernel, bias = random.normal(size=(3, 4)).astype(np.float32), random.normal(size=4).astype(np.float32)
    batches = [(random.normal(size=(5, 3)).astype(np.float32), random.integers(0, 4, 5)) for _ in range(50)]
    rates = [poly_decay(step, 0.05, 60, 0.5, warmup_steps=5) for step in range(50)]
    model = _one_layer(kernel, bias)
    step = loop.make_train_step(model, keras.optimizers.SGD(1.0, momentum=0.9), weight_decay=0.1)
    losses = [float(step(x, y, tf.constant(rate, tf.float32))) for (x, y), rate in zip(batches, rates, strict=True)]
    expected = _caffe(kernel, bias, batches, rates, 0.9, 0.1)
    for value, wanted in zip([*model.get_layer("pool10").get_weights(), losses], expected, strict=True):
        np.testing.assert_allclose(value, wanted, atol=2e-6)


def test_every_weight_and_bias_decays():
    # With all classes equally probable and equally frequent, equal pictures give no gradient: what moves has decayed.
    images, labels = np.zeros((10, 16, 16, 3), np.float32), np.arange(10)
    model = build(SPEC, dropout_rate=0.0)
    before = {name: array + 1 for name, array in named_arrays(model).items()}
    before |= {name: np.ones_like(before[name]) for name in ("conv10/kernel", "conv10/bias")}
    assign(model, before)
    loop.make_train_step(model, keras.optimizers.SGD(1.0), weight_decay=0.25)(images, labels, tf.constant(0.1))
    for name, after in named_arrays(model).items():
        np.testing.assert_allclose(after, before[name] * (1 - 0.1 * 0.25), rtol=1e-4, err_msg=name)


@pytest.fixture(scope="module")
def trained(tfds_dir, digits, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "new" / "workdir"
    return workdir, loop.train_and_evaluate(CONFIG, workdir, tfds_dir)


def test_a_run_leaves_its_files_and_nothing_else(trained):
    workdir, results = trained
    assert sorted(path.name for path in workdir.iterdir()) == sorted(loop.OUTPUTS)
    assert json.loads((workdir / "evaluation.json").read_text()) == results
    assert (results["split"], results["num_images"]) == ("test", 355)
    assert results["num_params"] == SPEC.count_params()
    assert results["config"] == CONFIG.to_json()


@pytest.mark.parametrize("name", ["", "model.weights.h5", "model.keras"])
def test_the_model_reloads_with_its_labels_and_its_accuracy(trained, digits, name):
    workdir, results = trained
    spec, _ = resolve_model(workdir / name)
    assert spec.labels == tuple("0123456789")
    assert (spec.metaparameters, spec.input_size, spec.preprocessing) == (TINY, 16, SPEC.preprocessing)
    model = load(workdir / name)
    batches = list(evaluation_batches(digits, "test", spec, batch_size=100))
    scores = np.concatenate([model.predict_on_batch(images) for images, _ in batches])
    again = keras.models.load_model(workdir / "model.keras").predict_on_batch(batches[0][0])
    np.testing.assert_array_equal(scores[:100], again)
    right = scores.argmax(1) == np.concatenate([labels for _, labels in batches])
    assert round(float(right.mean()), 6) == results["top1_accuracy"]


def test_a_workdir_with_a_model_is_refused_and_kept(trained, tfds_dir):
    workdir, _ = trained
    before = (workdir / "model.keras").read_bytes()
    with pytest.raises(ValueError, match="another --workdir"):
        loop.train_and_evaluate(CONFIG, workdir, tfds_dir)
    assert (workdir / "model.keras").read_bytes() == before


def test_a_workdir_that_is_a_file_is_refused(tmp_path, tfds_dir):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="--workdir"):
        loop.train_and_evaluate(CONFIG, tmp_path / "file" / "below", tfds_dir)


def test_a_loss_that_is_not_finite_names_its_step_and_writes_nothing(tmp_path, tfds_dir, digits):
    config = dataclasses.replace(CONFIG, base_learning_rate=1e30, max_steps=30)
    with pytest.raises(ValueError, match=r"The loss is (nan|inf) at step [1-9]\b"):
        loop.train_and_evaluate(config, tmp_path, tfds_dir)
    assert not list(tmp_path.iterdir())


def test_a_split_that_does_not_exist_is_refused_before_training(tmp_path, tfds_dir, digits):
    with pytest.raises(ValueError, match="no split 'dev'"):
        loop.train_and_evaluate(dataclasses.replace(CONFIG, validation_split="dev"), tmp_path / "w", tfds_dir)
    assert not (tmp_path / "w").exists()
