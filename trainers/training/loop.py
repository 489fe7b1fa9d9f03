"""The training loop: updates, looks at the validation split, checkpoints, and the test split once, at the end."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import pathlib
import signal
import time
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.files import write_json
from sqz_keras.models.squeezenet import assign, build
from trainers.data.batches import BadImages, Source, check_split, evaluation_batches, open_dataset, training_batches
from trainers.data.image_folder import open_image_dir
from trainers.evaluation.metrics import LossNotFiniteError, Outcome, accuracy_fields
from trainers.progress import Progress
from trainers.training import checkpoints, workdir
from trainers.training.config import TrainConfig
from trainers.training.distribute import is_chief, make_strategy, spread, worker_index
from trainers.training.initial_weights import initialise
from trainers.training.schedules import learning_rate
from trainers.training.step import TrainState, make_update

_LOG_EVERY_STEPS = 20
_STUCK_WITHIN = 0.01  # of ln(classes)
_EVALUATION_BATCH = 128


class Interrupted(Exception):  # noqa: N818 - no error: the run can be resumed
    """A signal asked the run to end; a checkpoint was written.

    Args:
        number: the signal, which stays with the exception.
        step: that was reached.
    """

    def __init__(self, number: signal.Signals, step: int):
        super().__init__(f"{number.name} at step {step}; the same command goes on from there.")
        self.signal = number


def train_and_evaluate(
    config: TrainConfig,
    folder: str | os.PathLike,
    data_dir: str | os.PathLike | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> dict:
    """Trains as `config` says, evaluates once on the test split, writes the model and its results into `folder`.

    A run that was stopped goes on from its newest checkpoint when it is called again with the same config. What is
    evaluated and kept at the end are the weights that did best on the validation split.

    Args:
        config: of the run.
        folder: the workdir, without a trained model; it is made where it does not exist.
        data_dir: TensorFlow Datasets' own folder; None is its default.
        callbacks: Keras callbacks of the caller's own; an "epoch" of theirs is the stretch between two looks at the
            validation split, with the logs `loss`, `accuracy`, `val_accuracy` and `learning_rate`.

    Returns:
        What evaluation.json holds: `top1_accuracy`, its `top1_interval` (95%), `num_images`, `num_params`, ...

    Raises:
        ValueError: the config does not fit the dataset, the devices or the earlier part of the run; `folder` holds a
            trained model; the loss is not finite; or too many images cannot be decoded.
        Interrupted: SIGTERM or SIGINT came.
    """
    folder = pathlib.Path(folder)
    workdir.check_workdir(folder)
    if keras.backend.backend() != "tensorflow":
        raise ValueError(f"Training needs Keras on TensorFlow, not on {keras.backend.backend()}; unset KERAS_BACKEND.")
    strategy = make_strategy(config.strategy)
    config.check_replicas(strategy.num_replicas_in_sync)
    source = open_source(config, data_dir)
    spec = dataclasses.replace(config.model, classes=len(source.labels), labels=source.labels)
    saved = checkpoints.load_newest(folder / "checkpoints")
    if saved is not None:
        workdir.check_same_run(config, saved[1]["config"], folder)
    folder.mkdir(parents=True, exist_ok=True)
    if is_chief(strategy):
        write_json(folder / "config.json", config.to_json())

    if config.deterministic:
        tf.config.experimental.enable_op_determinism()  # for the rest of the process: there is no way back
    run = _Run(config, spec, source, strategy, folder, callbacks)
    if saved is not None:
        run.restore(*saved)
    with _signals(run), _lost_workers():
        run.train()
    best = run.best_arrays()
    results, outcome = run.results(best)
    if is_chief(strategy):
        workdir.write_report(folder, spec, source, outcome, run.history, results)
        workdir.save_outputs(folder, spec, best, results)
    return results


def open_source(config: TrainConfig, data_dir: str | os.PathLike | None = None) -> Source:
    """The images of a config, prepared where need be.

    Raises:
        ValueError: there is no such dataset, folder or split.
    """
    source = open_image_dir(config.image_dir) if config.image_dir else open_dataset(config.dataset, data_dir)
    for split in (config.train_split, config.validation_split, config.test_split):
        check_split(source, split)
    return source


class _Run:
    """A run and where it stands."""

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
        self.step, self.seconds, self.history = 0, 0.0, []
        self.best = {"step": 0, "validation_top1_accuracy": -1.0}
        self.stop_signal = None
        keras.utils.set_random_seed(config.seed)
        with strategy.scope(), _precision(config.precision):
            model = build(spec, dropout_rate=config.dropout_rate)
            initialise(model, config, spec)
        self.state = TrainState(model, config, strategy)
        self.evaluated = build(spec)  # in float32 and on one device, as it will be kept
        self._predict = tf.function(lambda images: self.evaluated(images, training=False), reduce_retracing=True)
        self.bad_images = BadImages(config.max_bad_pictures)
        self.callbacks = keras.callbacks.CallbackList(list(callbacks), model=self.evaluated)
        self.evaluated.compile("sgd")  # never used to train: Keras's callbacks read the rate from it
        self.evaluated.stop_training = False
        if is_chief(strategy):
            self._summaries = tf.summary.create_file_writer(str(folder / "tensorboard"))

    def restore(self, arrays: dict[str, np.ndarray], meta: dict) -> None:
        """Takes up the run where a checkpoint left it."""
        self.state.restore(arrays)
        self.step, self.seconds, self.history, self.best = (
            meta[name] for name in ("step", "seconds", "history", "best")
        )
        for name in meta["bad_pictures"]:
            self.bad_images.add(name)
        logging.warning("Resumed at step %d of %d.", self.step, self.config.max_steps)

    def train(self) -> None:
        """Updates up to `max_steps`, or until a callback or a signal stops it."""
        config, pending, watched, updates = self.config, [], "", {}
        progress = Progress(config.max_steps, "step", images_per_unit=config.global_batch_size, first=self.step)
        started, before = time.monotonic(), self.seconds
        self.callbacks.on_train_begin()
        batches = self._batches() if self.step < config.max_steps else iter(())
        while self.step < config.max_steps and not self.evaluated.stop_training:
            rate = learning_rate(config, self.step)
            phase = (self.step < config.frozen_steps, self.step < config.sparse_steps)
            if phase not in updates:  # no phase comes back
                updates = {phase: make_update(self.state, config, self.strategy, *phase)}
            pending.append(updates[phase](next(batches), tf.constant(rate, tf.float32), self._mix()))
            self.step += 1
            self.seconds = before + time.monotonic() - started
            last = self.step == config.max_steps
            look = last or self.step % config.eval_every_steps == 0
            save = look or self.stop_signal is not None or self.step % config.checkpoint_every_steps == 0
            if save or self.step % _LOG_EVERY_STEPS == 0:  # a loss is fetched seldom: the next step waits for it
                loss, accuracy = self._fetch(pending)
                if look:
                    watched = f"  validation top-1 {self._look(loss, accuracy, rate):.1%}"
                progress.show(self.step, f"loss {loss:.4f}{watched}", now=look)
            if save:  # after the loss was seen to be finite
                self._save()
            if self.stop_signal is not None and not last:
                raise Interrupted(self.stop_signal, self.step)
        self.callbacks.on_train_end()

    def results(self, arrays: dict[str, np.ndarray]) -> tuple[dict, Outcome]:
        """Evaluates these weights, once, on the test split."""
        config = self.config
        outcome = self._evaluate(config.test_split, arrays)
        return accuracy_fields("top1", outcome.correct, len(outcome.truth)) | {
            "split": config.test_split,
            "num_images": len(outcome.truth),
            "best_step": self.best["step"],
            "validation_top1_accuracy": self.best["validation_top1_accuracy"],
            "num_params": self.evaluated.count_params(),
            "steps": self.step,
            "train_seconds": round(self.seconds, 1),
            "images_per_second": self._images_per_second(),
            "bad_pictures": len(self.bad_images.names),
            "config": config.to_json(),
        }, outcome

    def best_arrays(self) -> dict[str, np.ndarray]:
        """The weights that did best on the validation split."""
        if self.best["step"] == self.step:
            return self.state.served_arrays()
        arrays, _ = checkpoints.load(self.folder / "checkpoints", self.best["step"])
        group = "average/" if self.config.ema_decay else "weight/"
        return {name.removeprefix(group): array for name, array in arrays.items() if name.startswith(group)}

    def _batches(self) -> Iterator:
        """The batches from this step on, spread over the replicas.

        The quicker pipeline reads them until an image cannot be decoded, and the guarded one from that batch on.
        """
        step = self.step
        # How an error comes through a tf.data service is not ours to say.
        for guarded in (True,) if self.config.data_service else (False, True):
            batches = iter(self._worker_batches(step, guarded))
            try:
                for batch in batches:
                    yield spread(batch, self.strategy)
                    step += 1
            except tf.errors.InvalidArgumentError:
                if guarded:
                    raise

    def _worker_batches(self, step: int, guarded: bool) -> tf.data.Dataset:
        """This worker's part of the batches from `step` on."""
        config = self.config
        index, workers = worker_index(self.strategy)
        return training_batches(
            self.source,
            config.train_split,
            self.spec,
            batch_size=config.global_batch_size // workers,
            seed=config.seed,
            augmentation=config.augmentation,
            shuffle_buffer_size=config.shuffle_buffer_size,
            start_example=step * config.global_batch_size,
            bad_images=self.bad_images,
            guarded=guarded,
            num_shards=workers,
            shard_index=index,
            data_service=config.data_service,
        )

    def _mix(self) -> tf.Tensor:
        """Mixup's share of this step, from the seed and the step alone."""
        alpha = self.config.mixup_alpha
        share = np.random.default_rng([self.config.seed, self.step]).beta(alpha, alpha) if alpha else 1.0
        return tf.constant(share, tf.float32)

    def _fetch(self, pending: list) -> tuple[float, float]:
        """The mean loss and top-1 accuracy of the updates since the last time, which it forgets.

        Raises:
            LossNotFiniteError: a loss is not finite; its step is named.
            ValueError: too many images could not be decoded.
        """
        self.bad_images.check()
        losses, right, counts = np.array([[float(value) for value in each] for each in pending]).T
        pending.clear()
        if not np.isfinite(losses).all():
            step = self.step - len(losses) + int(np.argmin(np.isfinite(losses)))
            raise LossNotFiniteError(
                f"The loss is {losses[~np.isfinite(losses)][0]} at step {step}; training stopped. The checkpoints "
                f"before it are in {self.folder / 'checkpoints'}. Lower base_learning_rate, or look for damaged images."
            )
        return float(losses.mean()), float(right.sum() / max(counts.sum(), 1))

    def _look(self, loss: float, accuracy: float, rate: float) -> float:
        """Evaluates on the validation split and records it."""
        outcome = self._evaluate(self.config.validation_split, self.state.served_arrays())
        accuracy_there = outcome.correct / len(outcome.truth)
        row = {
            "step": self.step,
            "loss": round(loss, 6),
            "top1_accuracy": round(accuracy, 6),
            "validation_top1_accuracy": round(accuracy_there, 6),
            "learning_rate": rate,
            "images_per_second": self._images_per_second(),
        }
        self.history.append(row)
        if row["validation_top1_accuracy"] >= self.best["validation_top1_accuracy"]:
            self.best = {name: row[name] for name in self.best}
        if is_chief(self.strategy):
            with self._summaries.as_default(self.step):
                for name, value in row.items():
                    tf.summary.scalar(name, value)
        self._warn_if_stuck(loss)
        logs = {"loss": loss, "accuracy": accuracy, "val_accuracy": accuracy_there, "learning_rate": rate}
        self.evaluated.optimizer.learning_rate = rate
        self.callbacks.on_epoch_end(len(self.history) - 1, logs)
        return accuracy_there

    def _evaluate(self, split: str, arrays: dict[str, np.ndarray]) -> Outcome:
        """What these weights answer on every image of a split that can be read."""
        assign(self.evaluated, arrays)
        parts = []
        batches = evaluation_batches(self.source, split, self.spec, batch_size=_EVALUATION_BATCH)
        for images, labels, weights in batches:
            scores = self._predict(images).numpy()
            parts.append((weights.numpy() > 0, labels.numpy(), scores.argmax(1), scores.max(1)))
        read, *columns = map(np.concatenate, zip(*parts, strict=True))
        return Outcome(np.flatnonzero(read), *(column[read] for column in columns))

    def _warn_if_stuck(self, loss: float) -> None:
        floor, warmed_up = math.log(self.spec.classes), max(self.config.warmup_steps, self.config.max_steps // 10)
        if self.step >= warmed_up and abs(loss - floor) <= _STUCK_WITHIN * floor:
            logging.warning(
                "At step %d the loss is %.3f, which is ln(%d classes): the net has learnt nothing yet. What helps: a "
                "lower base_learning_rate, warmup_steps, conv10_bias=1 where classes are few, with a bypass "
                "--preprocessing_mode=torch, whose inputs are small, labels that fit the images.",
                self.step,
                loss,
                self.spec.classes,
            )

    def _save(self) -> None:
        if not is_chief(self.strategy):
            return
        meta = {name: getattr(self, name) for name in ("step", "seconds", "history", "best")}
        meta |= {"config": self.config.to_json(), "bad_pictures": self.bad_images.names}
        checkpoints.save(self.folder / "checkpoints", self.step, self.state.arrays(), meta)
        checkpoints.prune(self.folder / "checkpoints", self.config.keep_checkpoints, {self.best["step"]})
        workdir.write_history(self.folder, self.history)

    def _images_per_second(self) -> float:
        return round(self.step * self.config.global_batch_size / max(self.seconds, 1e-9), 1)


@contextlib.contextmanager
def _precision(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if name == "bfloat16" else "float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextlib.contextmanager
def _lost_workers() -> Iterator[None]:
    """Says in one line what TensorFlow says in many when another worker is gone."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
        raise ConnectionError(
            f"Another worker of this run has ended ({error.message:.200}). Start all of them again with the same "
            "command: they go on from the newest checkpoint."
        ) from error


@contextlib.contextmanager
def _signals(run: _Run) -> Iterator[None]:
    """SIGTERM and SIGINT let the update end, and the run save; a second one ends it at once."""

    def ask(number, _):
        run.stop_signal = signal.Signals(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    before = {}
    try:
        for each in (signal.SIGTERM, signal.SIGINT):
            before[each] = signal.signal(each, ask)
    except ValueError:  # not in the main thread: the caller's business then
        before = {}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
