"""From a dataset of TensorFlow Datasets to batches of network inputs and labels."""

from __future__ import annotations

import dataclasses
import os
import sys

import tensorflow as tf
import tensorflow_datasets as tfds

from sqz_keras.preprocessing import prepare_images
from sqz_keras.spec import ModelSpec
from trainers.datasets import digits as _digits  # noqa: F401 - registers its builder

_FOREVER = tf.int64.max
_PARALLEL_CALLS = os.cpu_count() or 1
_PREFETCHED_BATCHES = 2


def open_dataset(name: str, data_dir: str | os.PathLike | None = None) -> tfds.core.DatasetBuilder:
    """The prepared dataset of this name; prepares it in `data_dir` where it is not.

    Args:
        name: as in `tfds.builder(name)`.
        data_dir: TensorFlow Datasets' own folder; None is its default.

    Raises:
        ValueError: no dataset has this name, or it has no features "image" and "label" (classes).
    """
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except tfds.core.DatasetNotFoundError as error:
        raise ValueError(f"No dataset is called {name!r}; name one of TensorFlow Datasets, or 'digits'.") from error
    features = builder.info.features
    kinds = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
    wrong = [key for key, kind in kinds.items() if key not in features or not isinstance(features[key], kind)]
    if wrong:
        raise ValueError(f"Dataset {name!r} is no image classification: it needs the features {list(kinds)}.")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    return builder


def check_split(builder: tfds.core.DatasetBuilder, split: str) -> int:
    """The number of images of a split.

    Raises:
        ValueError: the dataset has no such split.
    """
    if split not in builder.info.splits:
        raise ValueError(f"Dataset {builder.name!r} has no split {split!r}, only {sorted(builder.info.splits)}.")
    return builder.info.splits[split].num_examples


def training_batches(
    builder: tfds.core.DatasetBuilder,
    split: str,
    spec: ModelSpec,
    *,
    batch_size: int,
    shuffle_buffer_size: int,
    seed: int,
) -> tf.data.Dataset:
    """Endless batches for training; all that is random follows from `seed` alone, whatever the parallelism.

    Every epoch holds every image once, in an order of its own. Batches run over the ends of epochs, so that no image
    is left out and all batches are of one size. As the authors do, a random square of the network's input size is cut
    from the resized image, where evaluation takes the centre.

    Returns:
        Dataset of (float32 (batch_size, S, S, 3), int64 (batch_size,)), S being the spec's input size.
    """
    records = _encoded_records(builder, split)

    def epoch_records(epoch):
        # The seed of this function's graph, not the process's, which would otherwise mix with the one below.
        tf.random.set_seed(1)
        epoch_seed = tf.random.stateless_uniform((), seed=[seed, epoch], maxval=_FOREVER, dtype=tf.int64)
        # Encoded images are shuffled, since decoded ones would need many times the memory.
        return records.shuffle(shuffle_buffer_size, seed=epoch_seed, reshuffle_each_iteration=False)

    size = spec.input_size
    whole = _decoder(dataclasses.replace(spec, input_size=spec.preprocessing.resize_to))

    def decode_and_crop(position, record):
        image, label = whole(record)
        return tf.image.stateless_random_crop(image, (size, size, 3), seed=[seed, position]), label

    stream = tf.data.Dataset.range(_FOREVER).flat_map(epoch_records).enumerate()
    batches = stream.map(decode_and_crop, _PARALLEL_CALLS).batch(batch_size, drop_remainder=True)
    return _without_autotune(batches.prefetch(_PREFETCHED_BATCHES))


def evaluation_batches(
    builder: tfds.core.DatasetBuilder, split: str, spec: ModelSpec, *, batch_size: int
) -> tf.data.Dataset:
    """Every image of a split exactly once, in the dataset's order; the last batch may be smaller.

    Returns:
        Dataset of (float32 (N, S, S, 3), int64 (N,)), S being the spec's input size.
    """
    batches = _encoded_records(builder, split).map(_decoder(spec), _PARALLEL_CALLS).batch(batch_size)
    return _without_autotune(batches.prefetch(_PREFETCHED_BATCHES))


def _encoded_records(builder: tfds.core.DatasetBuilder, split: str) -> tf.data.Dataset:
    check_split(builder, split)
    return builder.as_dataset(split=split, decoders={"image": tfds.decode.SkipDecoding()})


def _without_autotune(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Without tf.data's tuning thread: with it the end of an iterator at times took as long as all that went before.

    Seen with TensorFlow 2.21 in 7 of 28 short runs with it, and in none of 28 without.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)


def _decoder(spec: ModelSpec):
    def decode(record):
        # Decodes PNG too, and grey to RGB. This method is Pillow's, to the bit; the default one is up to 6 levels off.
        image = tf.io.decode_jpeg(record["image"], channels=3, dct_method="INTEGER_ACCURATE")
        return prepare_images(image, spec), record["label"]

    return decode
