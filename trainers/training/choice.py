"""A config for a folder of images, if the user names none: transfer from the authors' v1.1."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

import numpy as np

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.weights.records import get_record
from trainers.data.image_folder import open_image_dir
from trainers.data.source import Source
from trainers.training.config import HEAD_STRATEGIES, TrainConfig

WEIGHTS = "squeezenet1.1_authors"
_BATCH = 64
_HEAD_EPOCHS, _MOST_HEAD_IMAGES = 2, 20_000  # their features, 80 MB, are kept in memory
_UPDATES_FROM = 100  # images per class; with 30 to 50, updates after conv10 was fitted were no gain (docs/results.md)
_EPOCHS = 20
_FEWEST_UPDATES, _MOST_UPDATES = 100, 10_000
# Measured on 2 cores: to start, to compute features, and to update.
_MINUTES_TO_START, _FEATURES_A_MINUTE, _UPDATES_A_MINUTE = 0.5, 6_000, 50
_IMBALANCE = 2  # the classes are weighted if the largest has at least this many times the images of the smallest
_SAME_SPEED = {"image_dir", "head_images", "frozen_steps", "max_steps", "class_weights", "conv10_bias", "seed"}


def choose_config(
    given: Mapping[str, object],
    net_flags: Collection[str] = (),
    change_model: Callable[[ModelSpec], ModelSpec] = lambda model: model,
) -> tuple[TrainConfig, str]:
    """The config for a folder of images, and what was chosen and why, as text for the user.

    The choice depends only on what is given and on the number of images of each class, so that the same command resumes
    a run.

    Args:
        given: Fields of the config that the user chose: `image_dir`, as `open_image_dir` takes it, and others.
        net_flags: Names of the user's flags that change the network or its input.
        change_model: Turns the chosen model into the one with those changes.

    Returns:
        The config, with the fields that are given, and the reasons for the others.

    Raises:
        ValueError: The folder cannot be trained on, or the config refuses a field.
    """
    source = open_image_dir(given["image_dir"])
    images, counts, has_test = source.sizes["train"], source.count_by_class("train"), "test" in source.sizes
    has_head = bool(given.get("weights", WEIGHTS)) and given.get("strategy", "one") in HEAD_STRATEGIES
    head_images = given.get("head_images", min(_HEAD_EPOCHS * images, _MOST_HEAD_IMAGES) if has_head else 0)
    few = bool(head_images) and images < _UPDATES_FROM * len(counts)
    updates = min(max(math.ceil(_EPOCHS * images / _BATCH), _FEWEST_UPDATES), _MOST_UPDATES)
    steps = given.get("max_steps", 0 if few else updates)
    config = TrainConfig(
        model=change_model(ModelSpec("1.1", preprocessing=get_record(WEIGHTS).spec.preprocessing)),
        **{
            "weights": WEIGHTS,
            # Without a test split the validation split is evaluated once, at the end, so that it chooses nothing.
            "test_split": "test" if has_test else "validation",
            "eval_every_steps": max(1, math.ceil(steps / 5) if has_test else steps),
            "head_images": head_images,
            "frozen_steps": 0 if head_images else min(steps // 10, 100),
            "max_steps": steps,
            "base_learning_rate": 0.002,
            # Classes without pretrained weights in conv10 start above its ReLU, or it could silence them for good.
            "conv10_bias": 1.0,
            "class_weights": "none" if counts.max() < _IMBALANCE * counts.min() else "balanced",
            "global_batch_size": _BATCH,
            "checkpoint_every_steps": 25,
        }
        | given,
    )
    return config, "\n  ".join(_reasons(config, source, counts, given, net_flags))


def _reasons(
    config: TrainConfig, source: Source, counts: np.ndarray, given: Mapping[str, object], net_flags: Collection[str]
) -> list[str]:
    """One line about each choice that is not the user's; the lines describe the config with the user's fields."""
    images = source.sizes["train"]
    prepared = "" if "preprocessing_mode" in net_flags else " Images are prepared as for these weights."
    reasons = {"weights": f"a few images per class are not enough to train from scratch.{prepared}"}
    if config.head_images:
        reasons["head_images"] = (
            f"conv10 is fitted to the features that the frozen layers of {config.weights} compute in "
            f"{config.head_images / images:.1f} passes over the images."
        )
    if config.max_steps:
        epochs = config.max_steps * config.global_batch_size / images
        frozen = f", conv10 alone in the first {config.frozen_steps}" if config.frozen_steps else ""
        reasons["max_steps"] = f"{epochs:.0f} epochs of updates of {config.global_batch_size} images each{frozen}."
    else:
        reasons["max_steps"] = (
            f"all other layers stay as they are; with fewer than {_UPDATES_FROM} images per class, training them does "
            "not help."
        )
    if config.class_weights == "balanced":
        reasons["class_weights"] = "the largest class has at least twice as many images as the smallest."
    else:
        reasons["class_weights"] = "the classes are about equally large."
    per_class = f"{counts.min()} to {counts.max()}" if counts.min() < counts.max() else counts.min()
    splits = ", ".join(f"{split} {count:,}" for split, count in source.sizes.items())
    lines = [
        f"No --config: chosen for {len(counts)} classes with {per_class} training images each ({splits}). "
        "Your flags override these:",
        *(f"--{name}={getattr(config, name)}: {text}" for name, text in reasons.items() if name not in given),
    ]
    if not net_flags and set(given) <= _SAME_SPEED:
        minutes = _MINUTES_TO_START + config.head_images / _FEATURES_A_MINUTE + config.max_steps / _UPDATES_A_MINUTE
        lines.append(f"This takes about {max(1, round(minutes))} minute{'s' * (minutes >= 1.5)} on 2 cores.")
    if not given.keys() & {"validation_split", "test_split"}:
        lines.append(
            "The test split is evaluated once, at the end; the weights that did best on validation are kept."
            if "test" in source.sizes
            else "There is no test split: the validation split is evaluated once, at the end, and chooses nothing."
        )
    return lines
