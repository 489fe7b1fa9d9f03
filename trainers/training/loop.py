"""Training and evaluation in one call: the run up to its last step, the test split once, and the outputs."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Sequence

from sqz_keras.backend import check_is_tensorflow
from sqz_keras.extras import needs
from sqz_keras.files import locked, write_json
from trainers.training.config import TrainConfig

with needs("train"):
    import keras
    import tensorflow as tf

    from trainers.data.image_folder import check_is_no_class, open_image_dir
    from trainers.data.source import Source, check_labels, check_split, open_dataset
    from trainers.progress import say
    from trainers.training import checkpoints, workdir
    from trainers.training.distribute import is_chief, make_strategy
    from trainers.training.interruption import lost_workers, mendable_errors, stop_signals
    from trainers.training.run import Run


@mendable_errors()
def train_and_evaluate(
    config: TrainConfig,
    folder: str | os.PathLike,
    data_dir: str | os.PathLike | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> dict:
    """Trains as `config` says, evaluates once on the test split, writes the model and its results into `folder`.

    A stopped run resumes from its newest checkpoint when it is called again with the same config. The weights with the
    best accuracy on the validation split are evaluated and kept at the end.

    Args:
        config: The run's config.
        folder: The workdir, without a trained model; it is made if it does not exist.
        data_dir: TensorFlow Datasets' own folder; None is its default.
        callbacks: The caller's Keras callbacks; an "epoch" of theirs is the time between two evaluations on
            the validation split, with the logs `loss`, `accuracy`, `val_accuracy` and `learning_rate`.

    Returns:
        What evaluation.json holds: `top1_accuracy`, its `top1_interval` (95%), `num_images`, `num_params`, ...

    Raises:
        ValueError: The config does not fit the dataset, the devices or the earlier part of the run; `folder` holds a
            trained model, or another process trains in it; the loss is not finite; or too many images cannot be
            decoded.
        OSError: A file cannot be read or written, or memory is exhausted.
        Interrupted: A SIGTERM or SIGINT was received; a checkpoint was written.
    """
    folder = pathlib.Path(folder)
    workdir.check_workdir(folder)
    if config.image_dir:
        check_is_no_class(folder, config.image_dir)
    check_is_tensorflow("Training")
    strategy = make_strategy(config.strategy)
    config.check_replicas(strategy.num_replicas_in_sync)
    source = open_source(config, data_dir)
    spec = dataclasses.replace(config.model, classes=len(source.labels), labels=source.labels)
    saved = checkpoints.load_newest(folder / "checkpoints")
    if saved is not None:
        workdir.check_same_run(config, source, saved[1], folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder) if is_chief(strategy) else contextlib.nullcontext():
        workdir.check_workdir(folder)  # again: another process may have trained in the meantime
        if is_chief(strategy):
            write_json(folder / "config.json", config.to_json())
        if config.deterministic:
            tf.config.experimental.enable_op_determinism()  # for the rest of the process: there is no way back
        run = Run(config, spec, source, strategy, folder, callbacks)
        if saved is not None:
            run.restore(*saved)
        with stop_signals() as stop_signal, lost_workers():
            run.train(stop_signal)
        best = run.best_arrays()
        results, predictions = run.results(best)
        if is_chief(strategy):
            workdir.write_report(folder, spec, source, predictions, run.history, results)
            workdir.save_outputs(folder, spec, best, results)
    return results


def open_source(config: TrainConfig, data_dir: str | os.PathLike | None = None) -> Source:
    """The images of a config, prepared if necessary; a split with images of the training split is named on stderr.

    Raises:
        ValueError: There is no such dataset, folder or split, or the split has no labels.
    """
    train, *others = splits = (config.train_split, config.validation_split, config.test_split)
    source = open_image_dir(config.image_dir) if config.image_dir else open_dataset(config.dataset, data_dir, splits)
    for split in splits:
        check_split(source, split)
        check_labels(source, split)
    for split in dict.fromkeys(others):
        if source.overlap(train, split):
            say(f"The split {split!r} has images of the training split {train!r}, so its accuracy is too high.")
    return source
