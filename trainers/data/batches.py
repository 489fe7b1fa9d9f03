"""From a source of labelled, encoded images to batches of images, labels and weights."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.images.files import first_names
from sqz_keras.images.preprocessing import prepare_images
from trainers.data.augmentation import AUGMENTATIONS, augmented, decode
from trainers.datasets import digits as _digits  # noqa: F401 - registers its builder

_FOREVER = tf.int64.max
# More than the cores: images come out in order, so a slow one holds up those that are done.
_PARALLEL_CALLS = 4 * (os.cpu_count() or 1)
_PREFETCHED_BATCHES = 2


@dataclasses.dataclass(frozen=True)
class Source:
    """Labelled images, split by split.

    Args:
        name: shown to people.
        labels: names of the classes, in the order of their indices.
        sizes: number of images of each split.
        records: from a split's name to its dataset of {"image": string (encoded), "label": int64, "id": string}, in a
            fixed order; ids are unique within a split.
        needs_python: Whether some of the images are neither JPEG nor PNG, so that TensorFlow cannot decode them.
        class_sizes: number of images of each class in each split, int (classes,); None if only the records tell it.
        files: the files of all splits in the order of the records, and the folder that they are in; None for a dataset
            that is not in files.
    """

    name: str
    labels: tuple[str, ...]
    sizes: dict[str, int]
    records: Callable[[str], tf.data.Dataset]
    needs_python: bool = False
    class_sizes: dict[str, np.ndarray] | None = None
    files: tuple[tuple[str, ...], str] | None = None

    @functools.cached_property
    def files_sha256(self) -> str:
        """A hash of the files' sizes and of their paths below their folder, in order; empty without files.

        It therefore also covers their order and their class folders. Reading a million sizes takes seconds.
        """
        if self.files is None:
            return ""
        paths, root = self.files
        lines = (b"%s %d\n" % (os.fsencode(os.path.relpath(path, root)), os.path.getsize(path)) for path in paths)
        return hashlib.sha256(b"".join(lines)).hexdigest()

    def count_by_class(self, split: str) -> np.ndarray:
        """Number of images of each class in a split, int (classes,); without `class_sizes` it reads all records."""
        if self.class_sizes is not None:
            return self.class_sizes[split]
        labels = self.records(split).map(lambda record: record["label"]).as_numpy_iterator()
        return np.bincount(np.fromiter(labels, np.int64), minlength=len(self.labels))


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
                f"{len(names)} images cannot be decoded, and at most {self.limit} may be: "
                f"{first_names(names, 5)}. Replace them, or raise --max_bad_pictures."
            )


def open_dataset(name: str, data_dir: str | os.PathLike | None = None) -> Source:
    """Opens a dataset of TensorFlow Datasets by name; prepares it in `data_dir` if it is not prepared there.

    Args:
        name: as in `tfds.builder(name)`, or "digits".
        data_dir: TensorFlow Datasets' own folder; None is its default.

    Raises:
        ValueError: as for `find_builder`; or it is ImageNet and not prepared, or must first be downloaded by hand.
        OSError: it cannot be downloaded, or one of its files has a wrong checksum.
    """
    builder = find_builder(name, data_dir)
    if builder.name == "imagenet2012" and not builder.is_prepared():
        raise ValueError(f"imagenet2012 is not prepared in {builder.data_dir}; run sqz-prepare-imagenet first.")
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    except AssertionError as error:  # raised if files must be downloaded by hand
        raise ValueError(f"Dataset {name!r} cannot be prepared: {error}") from error
    except (tfds.download.DownloadError, NonMatchingChecksumError) as error:
        raise OSError(f"Dataset {name!r} cannot be downloaded: {' '.join(str(error).split())}") from error
    return Source(
        name=name,
        labels=tuple(builder.info.features["label"].names),
        sizes={split: info.num_examples for split, info in builder.info.splits.items()},
        records=lambda split: _tfds_records(builder, split),
    )


def find_builder(name: str, data_dir: str | os.PathLike | None = None) -> tfds.core.DatasetBuilder:
    """The builder of an image classification dataset, prepared or not.

    Raises:
        ValueError: no dataset has this name or version, it cannot be found, or it has no features "image" (of integers)
            and "label" (classes).
    """
    try:
        builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except tfds.core.DatasetNotFoundError as error:
        raise ValueError(f"No dataset is called {name!r}; name one of TensorFlow Datasets, or 'digits'.") from error
    except Exception as error:  # TensorFlow Datasets and the packages that it finds datasets with each have their own
        raise ValueError(f"Dataset {name!r} cannot be opened: {' '.join(str(error).split())}") from error
    features = builder.info.features
    kinds = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}
    are_there = all(key in features and isinstance(features[key], kind) for key, kind in kinds.items())
    # Floats are stored as the four bytes of a pixel, which would be read as its colours and alpha.
    if not are_there or features["image"].np_dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f'Dataset {name!r} is not for image classification: it needs the features "image" (Image of uint8 or '
            f'uint16) and "label" (ClassLabel), and has {" ".join(repr(features).split()):.300}.'
        )
    return builder


def _tfds_records(builder: tfds.core.DatasetBuilder, split: str) -> tf.data.Dataset:
    # A cache would be thrown away, with a warning, whenever a run does not end with an epoch.
    config = tfds.ReadConfig(add_tfds_id=True, try_autocache=False)
    records = builder.as_dataset(split=split, decoders={"image": tfds.decode.SkipDecoding()}, read_config=config)
    key = "file_name" if "file_name" in builder.info.features else "tfds_id"
    return records.map(lambda record: {"image": record["image"], "label": record["label"], "id": record[key]})


def check_split(source: Source, split: str) -> int:
    """The number of images of a split.

    Raises:
        ValueError: the source has no such split, or it is empty.
    """
    if not source.sizes.get(split):
        raise ValueError(
            f"Dataset {source.name!r} has no split {split!r}, only {sorted(source.sizes)}. Name one of these with "
            "--train_split, --validation_split or --test_split."
        )
    return source.sizes[split]


def has_labels(source: Source, split: str) -> bool:
    """Whether a split has labels; if it has none, TensorFlow Datasets gives -1. Reads only its first record."""
    return source.class_sizes is not None or next(source.records(split).take(1).as_numpy_iterator())["label"] >= 0


def check_labels(source: Source, split: str) -> None:
    """Refuses a split without labels.

    Raises:
        ValueError: it has no labels.
    """
    if not has_labels(source, split):
        raise ValueError(
            f"The split {split!r} of {source.name} has no labels: its first one is -1. Name another one, such as "
            "--test_split=validation."
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
