"""From a source of labelled, encoded images to batches of images, labels and weights."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
from absl import logging

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.images.files import first_names
from sqz_keras.images.preprocessing import prepare_images
from trainers.data.augmentation import AUGMENTATIONS, augmented, decode
from trainers.data.source import Source, check_split

_FOREVER = tf.int64.max
# More than the cores: images come out in order, so a slow one holds up those that are done.
_PARALLEL_CALLS = 4 * (os.cpu_count() or 1)
_PREFETCHED_BATCHES = 2


class BadImages:
    """Counts the images that cannot be decoded, each once however often it occurs, and names them in the log.

    Args:
        limit: number of different images that `check` tolerates.
    """

    def __init__(self, limit: int = 0):
        self.limit = limit
        self._names: dict[str, None] = {}
        self._lock = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """The ids of these images, in the order in which they were found."""
        with self._lock:
            return tuple(self._names)

    def add(self, name: str) -> None:
        """Counts an image; safe from any thread."""
        with self._lock:
            is_counted = name in self._names
            self._names[name] = None
        if not is_counted:
            logging.warning("Left out, since it cannot be decoded: %s", name)

    def check(self) -> None:
        """Refuses more images than the limit.

        Raises:
            ValueError: there are more; the message names the first ones.
        """
        names = self.names
        if len(names) > self.limit:
            raise ValueError(
                f"{len(names)} of the images cannot be decoded, and at most {self.limit} may be: "
                f"{first_names(names, 5)}. Replace them (sqz-classify says what is wrong with a file), or raise "
                "--max_bad_pictures."
            )


def training_batches(
    source: Source,
    split: str,
    spec: ModelSpec,
    *,
    batch_size: int,
    seed: int,
    augmentation: str = "none",
    shuffle_buffer_size: int,
    start_example: int = 0,
    bad_images: BadImages | None = None,
    guarded: bool = True,
    num_shards: int = 1,
    shard_index: int = 0,
    data_service: str = "",
) -> tf.data.Dataset:
    """Endless batches for training; order and augmentation depend only on (seed, epoch, position).

    Every epoch contains every image once, in its own order. Batches span the ends of epochs, so that no image is left
    out and all batches have the same size.

    Args:
        source: the labelled images.
        split: name of a split of the source.
        spec: the model's spec; S is its `input_size`.
        batch_size: images per batch; with shards, per batch of this shard.
        seed: in 0..2**32 - 1.
        augmentation: see `augmented`.
        shuffle_buffer_size: number of encoded images from which the next one is drawn.
        start_example: index of the first example; from there on, the stream is the same as one that began at 0. Earlier
            examples of the same epoch are read but not decoded.
        bad_images: collects the images that cannot be decoded; zeros of weight 0 take their place in the batch.
        guarded: if False, which is quicker, such an image ends the dataset with an InvalidArgumentError.
        num_shards: workers among which the examples are dealt out in turn, before they are decoded.
        shard_index: index of this worker.
        data_service: address of the tf.data service whose workers make the batches; they must reach the same files.
            Each of its workers takes the next whole epoch. With more than one worker, the order is therefore not fixed,
            and a later start leaves out the first images of several epochs.

    Returns:
        Dataset of (RGB in 0..255 (batch_size, S, S, 3), int64 (batch_size,), float32 weights (batch_size,)). The
            augmentation decides whether images are uint8 or float32; `preprocess_input` turns them into network inputs.

    Raises:
        ValueError: the split or the augmentation is unknown, or the workers of a tf.data service would have to decode
            what is neither JPEG nor PNG.
    """
    if data_service and source.needs_python:
        raise ValueError(
            f"{source.name} has images that are neither JPEG nor PNG, which the workers of a tf.data service cannot "
            "decode. Convert them, or leave out --data_service."
        )
    size = check_split(source, split)
    if augmentation not in AUGMENTATIONS:
        raise ValueError(f"augmentation must be one of {AUGMENTATIONS}, got {augmentation!r}.")
    records = source.records(split)
    buffer_size = min(shuffle_buffer_size, size)  # places for more would be reserved, in the same order of images

    @tf.autograph.experimental.do_not_convert
    def epoch_records(epoch):
        # Seeds this function's graph: otherwise the process's seed would mix with the one below.
        tf.random.set_seed(1)
        epoch_seed = tf.random.stateless_uniform((), seed=[seed, epoch], maxval=_FOREVER, dtype=tf.int64)
        # Shuffles encoded images, because decoded ones would need many times the memory.
        return records.shuffle(buffer_size, seed=epoch_seed, reshuffle_each_iteration=False)

    epoch, position = divmod(start_example, size)
    stream = tf.data.Dataset.range(epoch, _FOREVER).flat_map(epoch_records).skip(position)
    stream = stream.enumerate(start=start_example).shard(num_shards, shard_index)

    def make(data, position):
        return augmented(data, spec, augmentation, seed, position, guarded=guarded, in_python=not data_service)

    examples = _decoded(stream, make)
    batches = examples.batch(batch_size, drop_remainder=True)
    if data_service:
        sharding = tf.data.experimental.service.ShardingPolicy.DYNAMIC
        batches = batches.apply(tf.data.experimental.service.distribute(sharding, data_service))
    return _finished(batches, bad_images or BadImages())


def evaluation_batches(source: Source, split: str, spec: ModelSpec, *, batch_size: int) -> tf.data.Dataset:
    """Every image of a split exactly once, in the source's order; the last batch may be smaller.

    Returns:
        Triples as from `training_batches`, but with network inputs, float32, as `prepare_images` gives them.
    """
    check_split(source, split)

    def prepared(data, _):
        image, weight = decode(data)
        return tf.ensure_shape(prepare_images(image, spec), (spec.input_size, spec.input_size, 3)), weight

    examples = _decoded(source.records(split).enumerate(), prepared)
    return _finished(examples.batch(batch_size), BadImages())


def readable_batches(
    source: Source, split: str, spec: ModelSpec, *, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`evaluation_batches` as network inputs and labels, without the images that could not be decoded.

    A batch without any decoded image is left out, because networks do not accept empty batches.
    """
    batches = evaluation_batches(source, split, spec, batch_size=batch_size).as_numpy_iterator()
    return ((images[weights > 0], labels[weights > 0]) for images, labels, weights in batches if weights.any())


def _decoded(stream: tf.data.Dataset, make: Callable) -> tf.data.Dataset:
    """From (position, record) to (image, label, weight, id), where make(data, position) gives image and weight."""

    @tf.autograph.experimental.do_not_convert
    def decode_one(position, record):
        image, weight = make(record["image"], position)
        return image, record["label"], weight, record["id"]

    return stream.map(decode_one, _PARALLEL_CALLS)


def _finished(batches: tf.data.Dataset, bad_images: BadImages) -> tf.data.Dataset:
    """Turns batches from `_decoded` into (images, labels, weights), and reports the bad images."""

    def report(ids):
        for name in ids:
            bad_images.add(name.decode("utf-8", "replace"))

    @tf.autograph.experimental.do_not_convert
    def report_bad(images, labels, weights, ids):
        def call():
            tf.numpy_function(report, [tf.boolean_mask(ids, weights == 0)], [])
            return False

        tf.cond(tf.reduce_all(weights > 0), lambda: True, call)
        return images, labels, weights

    # Separate from decoding, because under op determinism TensorFlow calls Python from only one thread.
    return _with_options(batches.map(report_bad).prefetch(_PREFETCHED_BATCHES))


def _with_options(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Turns off tf.data's autotuning thread, which TensorFlow 2.21 sometimes cannot stop until it wakes up.

    The thread sleeps twice as long each time, so closing an iterator could take as long as everything before it.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    # Each image goes into its batch while it is still in the cache of the core that made it.
    options.experimental_optimization.map_and_batch_fusion = True
    # Images are already processed in parallel.
    options.threading.max_intra_op_parallelism = 1
    return batches.with_options(options)
