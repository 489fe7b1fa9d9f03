"""One training run: its state, and the updates, evaluations and checkpoints up to its last step."""

from __future__ import annotations

import contextlib
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.images.preprocessing import preprocess_input
from sqz_keras.models.squeezenet import assign, build
from trainers.data.batches import BadImages, training_batches
from trainers.data.source import Source
from trainers.evaluation.metrics import Predictions, accuracy_fields
from trainers.progress import progress_bar, say
from trainers.training import checkpoints, log, workdir
from trainers.training.config import TrainConfig
from trainers.training.distribute import is_chief
from trainers.training.evaluator import Evaluator
from trainers.training.head import fit_head
from trainers.training.initial_weights import initialise, prune
from trainers.training.input import batches_from
from trainers.training.interruption import Interrupted
from trainers.training.schedules import learning_rate, mixup_share
from trainers.training.step import TrainState, make_update

_LOG_EVERY_STEPS = 20
_HEAD_BATCH = 64  # images at a time whose features are computed


class Run:
    """A run and how far it has come.

    Args:
        config: The run's config.
        spec: The model, with the dataset's classes and labels.
        source: The labelled images.
        strategy: The strategy over whose replicas the updates are spread.
        folder: The workdir.
        callbacks: Keras callbacks of the caller.
    """

    def __init__(
        self,
        config: TrainConfig,
        spec: ModelSpec,
        source: Source,
        strategy: tf.distribute.Strategy,
        folder: pathlib.Path,
        callbacks: Sequence[keras.callbacks.Callback],
    ):
        self.config, self.spec, self.source, self.strategy, self.folder = config, spec, source, strategy, folder
        self.step, self.seconds, self.history, self.head_is_fitted = 0, 0.0, [], False
        self.best = {"step": 0, "validation_top1_accuracy": -1.0}
        self.class_weights = class_weights(source, config) if config.class_weights == "balanced" else None
        self.state = _initial_state(config, spec, strategy)
        self.evaluator = Evaluator(spec, source)
        self.bad_images = BadImages(config.max_bad_pictures)
        model = self.evaluator.model
        model.compile("sgd")  # never trained: Keras's callbacks read the learning rate from it
        model.stop_training = False
        self.callbacks = keras.callbacks.CallbackList(list(callbacks), model=model)
        self._writer = tf.summary.create_file_writer(str(folder / "tensorboard")) if is_chief(strategy) else None

    def restore(self, arrays: dict[str, np.ndarray], meta: dict) -> None:
        """Resumes from a checkpoint; warns if the best weights so far are lost."""
        self.state.restore(arrays)
        self.head_is_fitted = True
        self.step, self.seconds, self.history, self.best = (
            meta[name] for name in ("step", "seconds", "history", "best")
        )
        for name in meta["bad_pictures"]:
            self.bad_images.add(name)
        logging.warning("Resumed at step %d of %d.", self.step, self.config.max_steps)
        self.best_arrays()

    def train(self, stop_signal: Callable) -> None:
        """Makes the updates up to `max_steps`, or until a callback or a signal stops the run.

        Args:
            stop_signal: Returns the signal that asks the run to end, or None.

        Raises:
            Interrupted: A signal was received; a checkpoint was written, unless images were still read for conv10.
        """
        config, updates, validation = self.config, [], ""
        self.callbacks.on_train_begin()
        if config.head_images and not self.head_is_fitted:
            self._fit_head(stop_signal)
        started, earlier_seconds = time.monotonic(), self.seconds
        if not config.max_steps:
            signal = stop_signal()
            if signal is not None:  # while conv10 was fitted: a sweep would train its next net
                raise Interrupted(signal, self.step)
            self.callbacks.on_train_end()
            return
        with progress_bar(config.max_steps, "step", initial=self.step) as bar:
            for rate, update in self._updates():
                updates.append(update)
                self.step += 1
                self.seconds = earlier_seconds + time.monotonic() - started
                evaluates = self.step == config.max_steps or self.step % config.eval_every_steps == 0
                saves = evaluates or stop_signal() is not None or self.step % config.checkpoint_every_steps == 0
                # Fetching a loss makes the next step wait, so it is done seldom.
                if saves or self.step % _LOG_EVERY_STEPS == 0:
                    loss, accuracy = self._fetch(updates)
                    updates = []
                    if evaluates:
                        validation = f", validation top-1 {self._evaluate(loss, accuracy, rate):.1%}"
                    bar.set_postfix_str(f"loss {loss:.4f}{validation}", refresh=False)
                bar.update()
                if saves:  # only now, when the loss is known to be finite
                    self._save()
                    signal = stop_signal()
                    if signal is not None:  # after the last update too, or a sweep would train its next net
                        raise Interrupted(signal, self.step)
        self.callbacks.on_train_end()

    def results(self, arrays: dict[str, np.ndarray]) -> tuple[dict, Predictions]:
        """Evaluates these weights, once, on the test split: evaluation.json's fields, and the predictions."""
        config = self.config
        predictions = self.evaluator.evaluate(config.test_split, arrays)
        return accuracy_fields("top1", predictions.correct, len(predictions.truth)) | {
            "split": config.test_split,
            "num_images": len(predictions.truth),
            "best_step": self.best["step"],
            "validation_top1_accuracy": self.best["validation_top1_accuracy"],
            "num_params": self.evaluator.model.count_params(),
            "steps": self.step,
            "train_seconds": round(self.seconds, 1),
            "images_per_second": self._images_per_second(),
            "bad_pictures": len(self.bad_images.names),
            "config": config.to_json(),
        }, predictions

    def best_arrays(self) -> dict[str, np.ndarray]:
        """The weights with the best accuracy on the validation split, among those that can still be read.

        If these are not the weights of `best`, `best` is changed, with a warning. If there are none, the current
        weights are returned.
        """
        lost, none = self.best, {"step": 0, "validation_top1_accuracy": -1.0}
        by_accuracy = sorted(self.history, key=lambda row: (row["validation_top1_accuracy"], row["step"]), reverse=True)
        for row in [*by_accuracy, none]:
            arrays = self.state.served_arrays() if row is none else self._arrays_of(row["step"])
            if arrays is not None:
                break
        self.best = {name: row[name] for name in lost}
        if self.best["step"] != lost["step"]:
            logging.warning("The best weights, of step %d, cannot be read and are left out.", lost["step"])
        return arrays

    def _arrays_of(self, step: int) -> dict[str, np.ndarray] | None:
        """The weights after `step` updates; None if their checkpoint is damaged or gone."""
        if step == self.step:
            return self.state.served_arrays()
        try:
            arrays, _ = checkpoints.load(self.folder / "checkpoints", step)
        except (OSError, ValueError):
            return None
        group = "average/" if self.config.ema_decay else "weight/"
        return {name.removeprefix(group): array for name, array in arrays.items() if name.startswith(group)}

    def _fit_head(self, stop_signal: Callable) -> None:
        """Fits conv10 to `head_images` training images, augmented as for the first updates.

        The result is evaluated on the validation split too, and may be what is kept in the end, unless that split is
        also the test split and updates follow.

        Args:
            stop_signal: As for `train`.

        Raises:
            ValueError: More images cannot be decoded than the config allows.
            Interrupted: A signal was received; nothing was written.
        """
        config, model, started = self.config, self.evaluator.model, time.monotonic()
        size = min(config.head_images, _HEAD_BATCH)
        total = size * math.ceil(config.head_images / size)
        batches = training_batches(
            self.source,
            config.train_split,
            self.spec,
            batch_size=size,
            seed=config.seed,
            augmentation=config.augmentation,
            shuffle_buffer_size=config.shuffle_buffer_size,
            bad_images=self.bad_images,
        )

        def inputs():
            for images, labels, weights in batches.take(total // size):
                if stop_signal() is not None:
                    raise Interrupted(stop_signal(), 0)
                yield preprocess_input(images, "channels_last", self.spec.preprocessing.mode), labels, weights
                bar.update(size)

        assign(model, self.state.served_arrays())
        with progress_bar(total, "image") as bar:
            arrays, loss, accuracy = fit_head(model, inputs(), self.class_weights)
        self.bad_images.check()
        if config.densities:
            arrays = prune(arrays, config, self.spec)  # what was fitted is dense
        self.state.replace_weights(arrays)
        self.seconds += time.monotonic() - started
        message = f"conv10 was fitted to {total:,} images"
        if config.max_steps == 0 or config.validation_split != config.test_split:
            message += f", validation top-1 {self._evaluate(loss, accuracy, 0.0):.1%}"
            self._save()
        say(f"{message}.")

    def _updates(self) -> Iterator[tuple[float, tuple]]:
        """Makes one update each time the caller asks for the next; yields (learning rate, what the update returned)."""
        config, compiled = self.config, {}
        batches = batches_from(config, self.spec, self.source, self.strategy, self.bad_images, self.step)
        while self.step < config.max_steps and not self.evaluator.model.stop_training:
            rate = learning_rate(config, self.step)
            phase = (self.step < config.frozen_steps, self.step < config.sparse_steps)
            if phase not in compiled:  # a phase that is over does not come back
                compiled = {phase: make_update(self.state, config, self.strategy, *phase, self.class_weights)}
            mix = tf.constant(mixup_share(config, self.step), tf.float32)
            yield rate, compiled[phase](next(batches), tf.constant(rate, tf.float32), mix)

    def _fetch(self, updates: list[tuple]) -> tuple[float, float]:
        """The mean loss and accuracy of some updates, after a check that not too many images were unreadable."""
        self.bad_images.check()
        return log.mean_loss_and_accuracy(updates, self.step, self.folder / "checkpoints")

    def _evaluate(self, loss: float, accuracy: float, rate: float) -> float:
        """Evaluates on the validation split and records the result; returns the top-1 accuracy."""
        predictions = self.evaluator.evaluate(self.config.validation_split, self.state.served_arrays())
        validation_accuracy = predictions.correct / len(predictions.truth)
        row = {
            "step": self.step,
            "loss": round(loss, 6),
            "top1_accuracy": round(accuracy, 6),
            "validation_top1_accuracy": round(validation_accuracy, 6),
            "learning_rate": rate,
            "images_per_second": self._images_per_second(),
        }
        self.history.append(row)
        if row["validation_top1_accuracy"] >= self.best["validation_top1_accuracy"]:
            self.best = {name: row[name] for name in self.best}
        if self._writer is not None:
            log.write_summaries(self._writer, row)
        log.warn_if_stuck(self.config, self.spec.classes, self.step, loss)
        logs = {"loss": loss, "accuracy": accuracy, "val_accuracy": validation_accuracy, "learning_rate": rate}
        self.evaluator.model.optimizer.learning_rate = rate
        self.callbacks.on_epoch_end(len(self.history) - 1, logs)
        return validation_accuracy

    def _save(self) -> None:
        if not is_chief(self.strategy):
            return
        meta = {name: getattr(self, name) for name in ("step", "seconds", "history", "best")}
        meta |= {"config": self.config.to_json(), "bad_pictures": self.bad_images.names}
        meta |= {"images": workdir.images_of(self.source)}
        checkpoints.save(self.folder / "checkpoints", self.step, self.state.arrays(), meta)
        checkpoints.prune(self.folder / "checkpoints", self.config.keep_checkpoints, {self.best["step"]})
        workdir.write_history(self.folder, self.history)

    def _images_per_second(self) -> float:
        images = self.step * self.config.global_batch_size + self.config.head_images
        return round(images / max(self.seconds, 1e-9), 1)


def _initial_state(config: TrainConfig, spec: ModelSpec, strategy: tf.distribute.Strategy) -> TrainState:
    """The state before the first update, which depends only on the config."""
    keras.utils.set_random_seed(config.seed)
    with strategy.scope(), _precision(config.precision):
        model = build(spec, dropout_rate=config.dropout_rate)
        initialise(model, config, spec)
    return TrainState(model, config, strategy)


def class_weights(source: Source, config: TrainConfig) -> np.ndarray:
    """Weights of the classes, images / (classes * images of a class): float32, mean 1 over the images."""
    counts = source.count_by_class(config.train_split)
    return (counts.sum() / (len(counts) * np.maximum(counts, 1))).astype(np.float32)


@contextlib.contextmanager
def _precision(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if name == "bfloat16" else "float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
