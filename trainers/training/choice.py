"""A config for a folder of images, where the user names none: transfer from the authors' v1.1."""

from __future__ import annotations

import math
import os

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.weights.records import get_record
from trainers.data.image_folder import open_image_dir
from trainers.training.config import TrainConfig

WEIGHTS = "squeezenet1.1_authors"
_BATCH = 64
_EPOCHS = 20
_FEWEST_UPDATES, _MOST_UPDATES = 100, 10_000
_UPDATES_A_MINUTE = 50  # on 2 cores, as measured with the config `transfer`
_IMBALANCE = 2  # the largest class over the smallest, from which the classes are weighted


def choose_config(image_dir: str | os.PathLike, max_steps: int | None = None) -> tuple[TrainConfig, str]:
    """The config for a folder of images, and what was chosen and why, as text for the user.

    The choice follows from the number of images of each class alone, so that the same command resumes a run.

    Args:
        image_dir: As `open_image_dir` takes it.
        max_steps: Updates, where the user chose them.

    Raises:
        ValueError: The folder cannot be trained on.
    """
    source = open_image_dir(image_dir)
    counts, images = source.count_by_class("train"), source.sizes["train"]
    steps = max_steps or min(max(math.ceil(_EPOCHS * images / _BATCH), _FEWEST_UPDATES), _MOST_UPDATES)
    has_test = "test" in source.sizes
    is_balanced = counts.max() < _IMBALANCE * counts.min()
    config = TrainConfig(
        model=ModelSpec("1.1", preprocessing=get_record(WEIGHTS).spec.preprocessing),
        image_dir=str(image_dir),
        weights=WEIGHTS,
        # Without a test split the validation split is evaluated once, at the end, so that it chooses nothing.
        test_split="test" if has_test else "validation",
        eval_every_steps=math.ceil(steps / 5) if has_test else steps,
        frozen_steps=min(steps // 10, 100),
        max_steps=steps,
        base_learning_rate=0.002,
        # Classes without pretrained weights in conv10 begin above its ReLU, or it could silence them for good.
        conv10_bias=1.0,
        class_weights="none" if is_balanced else "balanced",
        global_batch_size=_BATCH,
        checkpoint_every_steps=25,
    )
    splits = ", ".join(f"{split} {count:,}" for split, count in source.sizes.items())
    lines = [
        f"No --config: chosen for {len(counts)} classes with {counts.min()} to {counts.max()} images for training "
        f"({splits}). Other flags of yours change it:",
        f"--weights={WEIGHTS}: a few images a class are too few to learn from scratch; pictures are prepared as for "
        "these weights.",
        f"--max_steps={steps} with {_BATCH} images each: {steps * _BATCH / images:.0f} epochs, about "
        f"{max(1, round(steps / _UPDATES_A_MINUTE))} minutes on 2 cores; conv10 alone in the first "
        f"{config.frozen_steps}.",
        "--class_weights=balanced: the largest class has at least twice the images of the smallest."
        if not is_balanced
        else "--class_weights=none: the classes are about equally large.",
        "The test split is evaluated once, at the end; the weights that did best on validation are kept."
        if has_test
        else "There is no test split: the validation split is evaluated once, at the end, and chooses nothing.",
    ]
    return config, "\n  ".join(lines)
