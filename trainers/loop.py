"""The training loop: a small `tf.function` step, a look at the validation split now and then, the test split once."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import tempfile
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from sqz_keras.spec import ModelSpec
from sqz_keras.squeezenet import build, named_arrays
from sqz_keras.weights import SPEC_NAME, write_spec
from trainers.config import TrainConfig
from trainers.input_pipeline import check_split, evaluation_batches, open_dataset, training_batches
from trainers.metrics import accuracy_fields, count_in_top
from trainers.progress import Progress
from trainers.report import write_json
from trainers.schedules import poly_decay

OUTPUTS = ("model.keras", "model.weights.h5", SPEC_NAME, "evaluation.json")
_LOG_EVERY_STEPS = 20


def train_and_evaluate(
    config: TrainConfig, workdir: str | os.PathLike, data_dir: str | os.PathLike | None = None
) -> dict:
    """Trains as `config` says, evaluates once on the test split, writes `OUTPUTS` into `workdir`.

    Args:
        config: of the run.
        workdir: a folder without a trained model; it is made where it does not exist.
        data_dir: TensorFlow Datasets' own folder; None is its default.

    Returns:
        What evaluation.json holds: `top1_accuracy`, its `top1_interval` (95%), `num_images`, `num_params`, ...

    Raises:
        ValueError: the config does not fit the dataset, `workdir` holds a model already, or the loss is not finite.
    """
    workdir = pathlib.Path(workdir)
    _check_workdir(workdir)
    if keras.backend.backend() != "tensorflow":
        raise ValueError(f"Training needs Keras on TensorFlow, not on {keras.backend.backend()}; unset KERAS_BACKEND.")
    builder = open_dataset(config.dataset, data_dir)
    for split in (config.train_split, config.validation_split, config.test_split):
        check_split(builder, split)
    labels = tuple(builder.info.features["label"].names)
    spec = dataclasses.replace(config.model, classes=len(labels), labels=labels)
    workdir.mkdir(parents=True, exist_ok=True)

    keras.utils.set_random_seed(config.seed)
    model = build(spec, dropout_rate=config.dropout_rate)
    kernel = model.get_layer("conv10").kernel
    kernel.assign(keras.initializers.RandomNormal(stddev=config.conv10_stddev)(kernel.shape))
    count_correct = make_count_correct(model)
    start = time.monotonic()
    validation_accuracy = _train(config, spec, model, builder, count_correct)
    seconds = time.monotonic() - start
    test = evaluation_batches(builder, config.test_split, spec, batch_size=config.global_batch_size)
    correct, total = count_correct(test)
    results = accuracy_fields("top1", correct, total) | {
        "split": config.test_split,
        "num_images": total,
        "validation_top1_accuracy": round(validation_accuracy, 6),
        "num_params": model.count_params(),
        "train_seconds": round(seconds, 1),
        "images_per_second": round(config.max_steps * config.global_batch_size / seconds, 1),
        "config": config.to_json(),
    }
    _save(workdir, spec, model, results)
    return results


def make_train_step(model: keras.Model, optimizer: keras.optimizers.Optimizer, weight_decay: float) -> Callable:
    """One update of `model`, compiled: step(images, labels, learning_rate) -> the mean cross-entropy, without L2.

    Weight decay is Caffe's: gradient += weight_decay * weight for every weight and bias, before the momentum. Keras's
    own `weight_decay=` is another rule, which decays less.
    """
    # The averages that the softmax takes: a cross-entropy of logits neither clips nor overflows.
    to_logits = keras.Model(model.inputs, model.get_layer("pool10").output)
    weights = model.trainable_variables
    optimizer.build(weights)

    @tf.function
    def step(images, labels, learning_rate):
        with tf.GradientTape() as tape:
            logits = to_logits(images, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        gradients = tape.gradient(loss, [weight.value for weight in weights])
        optimizer.learning_rate.assign(learning_rate)
        decayed = [gradient + weight_decay * weight for gradient, weight in zip(gradients, weights, strict=True)]
        optimizer.apply(decayed, weights)
        return loss

    return step


def make_count_correct(model: keras.Model) -> Callable[[tf.data.Dataset], tuple[int, int]]:
    """A function from evaluation batches to (images whose most probable class is right, images)."""
    shape = tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.float32)
    predict = tf.function(lambda images: model(images, training=False), input_signature=[shape])

    def count(batches):
        correct = total = 0
        for images, labels in batches:
            correct += count_in_top(predict(images).numpy(), labels.numpy(), 1)
            total += len(labels)
        return correct, total

    return count


def _train(
    config: TrainConfig,
    spec: ModelSpec,
    model: keras.Model,
    builder: tfds.core.DatasetBuilder,
    count_correct: Callable,
) -> float:
    """Trains `model` in place; returns the last top-1 accuracy on the validation split."""
    batches = training_batches(
        builder,
        config.train_split,
        spec,
        batch_size=config.global_batch_size,
        shuffle_buffer_size=config.shuffle_buffer_size,
        seed=config.seed,
    )
    validation = evaluation_batches(builder, config.validation_split, spec, batch_size=config.global_batch_size)
    optimizer = keras.optimizers.SGD(config.base_learning_rate, momentum=config.momentum)
    train_step = make_train_step(model, optimizer, config.weight_decay)
    progress = Progress(config.max_steps, "step", images_per_unit=config.global_batch_size)
    losses, watched, accuracy = [], "", 0.0
    for step, (images, labels) in enumerate(batches.take(config.max_steps)):
        rate = poly_decay(step, config.base_learning_rate, config.max_steps, config.power, config.warmup_steps)
        losses.append(train_step(images, labels, tf.constant(rate, tf.float32)))
        done = step + 1
        look = done % config.eval_every_steps == 0 or done == config.max_steps
        if not look and done % _LOG_EVERY_STEPS:
            continue  # a loss is fetched seldom, since the next step waits for it
        loss = _mean_loss(losses, step)
        losses.clear()
        if look:
            correct, total = count_correct(validation)
            accuracy = correct / total
            watched = f"  validation top-1 {accuracy:.1%}"
        progress.show(done, f"loss {loss:.4f}{watched}", now=look)
    return accuracy


def _mean_loss(losses: list[tf.Tensor], last_step: int) -> float:
    """The mean of the losses up to `last_step`.

    Raises:
        ValueError: one is not finite; its step is named.
    """
    values = np.asarray([float(loss) for loss in losses])
    if not np.isfinite(values).all():
        step = last_step - len(values) + 1 + int(np.argmin(np.isfinite(values)))
        raise ValueError(
            f"The loss is {values[~np.isfinite(values)][0]} at step {step}; training stopped and nothing was written. "
            "Lower base_learning_rate, or look for damaged images."
        )
    return float(values.mean())


def _check_workdir(workdir: pathlib.Path) -> None:
    present = [name for name in OUTPUTS if (workdir / name).exists()]
    if present:
        raise ValueError(f"{workdir} holds {present[0]} of an earlier run; choose another --workdir, or remove it.")
    existing = next(folder for folder in (workdir, *workdir.absolute().parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ValueError(f"--workdir={workdir} must be a folder that you may write to; {existing} is not.")


def _save(workdir: pathlib.Path, spec: ModelSpec, model: keras.Model, results: dict) -> None:
    """Writes all files under a temporary name first, so that each appears whole or not at all."""
    with tempfile.TemporaryDirectory(dir=workdir, prefix=".partial-") as partial:
        folder = pathlib.Path(partial)
        model.save(folder / "model.keras")
        model.save_weights(folder / "model.weights.h5")
        write_spec(folder / "model.weights.h5", spec, named_arrays(model))
        write_json(folder / "evaluation.json", results)
        for name in OUTPUTS:
            os.replace(folder / name, workdir / name)
