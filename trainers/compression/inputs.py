"""Images without labels, and batches of network inputs to train on."""

from __future__ import annotations

import random

import numpy as np
import tensorflow as tf

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.images.files import find_images
from sqz_keras.images.preprocessing import preprocess_input
from trainers.data.batches import training_batches
from trainers.data.image_folder import file_records
from trainers.data.source import Source

SPLIT = "train"
_SHUFFLE_BUFFER = 4096


def unlabelled_source(folder: str) -> Source:
    """The images of a folder at any depth, all of class 0, in a fixed order that mixes its subfolders."""
    paths = [str(path) for path in find_images(folder)]
    random.Random(0).shuffle(paths)
    labels = np.zeros(len(paths), np.int64)

    def records(split: str) -> tf.data.Dataset:
        del split
        return file_records(folder, paths, labels)

    return Source(str(folder), ("any",), {SPLIT: len(paths)}, records, files=(tuple(paths), folder))


def input_batches(
    source: Source, spec: ModelSpec, *, batch_size: int, seed: int, augmentation: str, start_example: int = 0
) -> tf.data.Dataset:
    """Endless batches of network inputs, labels and weights; see `training_batches`."""
    return training_batches(
        source,
        SPLIT,
        spec,
        batch_size=batch_size,
        seed=seed,
        augmentation=augmentation,
        shuffle_buffer_size=_SHUFFLE_BUFFER,
        start_example=start_example,
    ).map(lambda images, *others: (preprocess_input(images, "channels_last", spec.preprocessing.mode), *others))
