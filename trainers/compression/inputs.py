"""Images without labels, and batches of network inputs to train on."""

from __future__ import annotations

import os
import pathlib
import random

import tensorflow as tf

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.images.files import find_images
from sqz_keras.images.preprocessing import preprocess_input
from trainers.data.batches import Source, training_batches

SPLIT = "train"
_SHUFFLE_BUFFER = 4096


def unlabelled_source(folder: str) -> Source:
    """The images of a folder at any depth, all of class 0, in an order in which its folders are mixed."""
    paths = [str(path) for path in find_images(folder)]
    random.Random(0).shuffle(paths)
    ids = [os.fsencode(pathlib.Path(path).relative_to(folder).as_posix()) for path in paths]

    def records(split: str) -> tf.data.Dataset:
        del split

        def read(path, name):
            return {"image": tf.io.read_file(path), "label": tf.constant(0, tf.int64), "id": name}

        return tf.data.Dataset.from_tensor_slices((list(map(os.fsencode, paths)), ids)).map(read, num_parallel_calls=16)

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
