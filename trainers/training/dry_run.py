"""Describes what a run would do and need, without doing it."""

from __future__ import annotations

import dataclasses
import json
import math
import os

from sqz_keras.architecture.summary import ALEXNET_PARAMETERS
from sqz_keras.models.squeezenet import build
from trainers.data.source import find_builder
from trainers.training.config import TrainConfig
from trainers.training.initial_weights import read_pretrained
from trainers.training.loop import open_source


def describe(config: TrainConfig, data_dir: str | os.PathLike | None) -> str:
    """A readable account of a run: config, parameters, updates, data, memory, and what each worker sends.

    Args:
        config: The run's config.
        data_dir: TensorFlow Datasets' own folder, which is read and not changed; None is its default.

    Raises:
        ValueError: The dataset, the folder of images, a split or the weights do not exist, a split has no labels, or
            the weights do not fit.
        OSError: The weights could not be downloaded.
    """
    sizes, classes = _data(config, data_dir)
    spec = dataclasses.replace(config.model, classes=classes, labels=None)
    if config.weights:
        read_pretrained(config, spec)
    model = build(spec)
    parameters = model.count_params()
    values = sum(math.prod(layer.output.shape[1:]) for layer in model.layers)
    slice_size = config.global_batch_size // config.accumulation_steps
    itemsize = 2 if config.precision == "bfloat16" else 4
    copies = 3 + bool(config.ema_decay)  # weights, velocities, gradients, averages
    lines = [json.dumps(config.to_json(), indent=1)]
    train = (sizes or {}).get(config.train_split)
    images = config.max_steps * config.global_batch_size
    lines += [
        f"parameters: {parameters:,}",
        f"updates: {config.max_steps:,} of {config.global_batch_size} images"
        + (f" = {images / train:.1f} epochs of {train:,}" if train else ""),
        "data: "
        + (
            ", ".join(f"{split} {count:,}" for split, count in sizes.items())
            if sizes
            else "not prepared yet; not touched"
        ),
        f"memory on one device, about: {2 * values * slice_size * itemsize / 2**20:,.0f} MiB of activations and their "
        f"gradients, {copies * 4 * parameters / 2**20:.0f} MiB of weights and what goes with them",
        f"sent by each worker and update: {4 * parameters / 1e6:.1f} MB of gradients (AlexNet: "
        f"{4 * ALEXNET_PARAMETERS / 1e6:.1f} MB, {ALEXNET_PARAMETERS / parameters:.0f} times as much)",
    ]
    return os.linesep.join(lines)


def _data(config: TrainConfig, data_dir: str | os.PathLike | None) -> tuple[dict[str, int] | None, int]:
    """The number of images in each split (None if the dataset is not prepared), and the number of classes."""
    if config.dataset:
        builder = find_builder(config.dataset, data_dir)
        if not builder.is_prepared():
            return None, builder.info.features["label"].num_classes
    source = open_source(config, data_dir)
    return source.sizes, len(source.labels)
