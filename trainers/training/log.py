"""What a run records of its updates: means, the history of evaluations, TensorBoard's events, and warnings."""

from __future__ import annotations

import math
import pathlib

import numpy as np
import tensorflow as tf
from absl import logging

from trainers.evaluation.metrics import LossNotFiniteError
from trainers.training.config import TrainConfig

_STUCK_WITHIN = 0.01  # relative distance of the loss from ln(classes)


def mean_loss_and_accuracy(updates: list[tuple], step: int, checkpoints: pathlib.Path) -> tuple[float, float]:
    """The mean loss and the top-1 accuracy over some updates.

    Args:
        updates: What `step.make_update`'s updates returned: (loss, number of correct images, number of images).
        step: The number of updates done, the last of `updates` included.
        checkpoints: The folder of checkpoints, named in the error.

    Raises:
        LossNotFiniteError: A loss is not finite; the message names its step.
    """
    losses, correct, counts = np.array([[float(value) for value in update] for update in updates]).T
    if not np.isfinite(losses).all():
        first = step - len(losses) + int(np.argmin(np.isfinite(losses)))
        raise LossNotFiniteError(
            f"The loss is {losses[~np.isfinite(losses)][0]} at step {first}; training stopped. The checkpoints "
            f"before it are in {checkpoints}. Lower base_learning_rate, or look for damaged images."
        )
    return float(losses.mean()), float(correct.sum() / max(counts.sum(), 1))


def write_summaries(writer: tf.summary.SummaryWriter, row: dict) -> None:
    """Writes a row of the history as TensorBoard's scalars."""
    with writer.as_default(row["step"]):
        for name, value in row.items():
            tf.summary.scalar(name, value)


def warn_if_stuck(config: TrainConfig, classes: int, step: int, loss: float) -> None:
    """Warns, once the warm-up is over, if the loss is still that of a network that has learnt nothing: ln(classes)."""
    chance = math.log(classes)
    if step >= max(config.warmup_steps, config.max_steps // 10) and abs(loss - chance) <= _STUCK_WITHIN * chance:
        logging.warning(
            "At step %d the loss is %.3f, which is ln(%d classes): the network has learnt nothing yet. Check that the "
            "labels match the images, and try a lower base_learning_rate, more warmup_steps, conv10_bias=1 with few "
            "classes, or, with a bypass, --preprocessing_mode=torch, whose inputs are small.",
            step,
            loss,
            classes,
        )
