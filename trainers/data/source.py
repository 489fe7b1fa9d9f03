"""Labelled, encoded images, split by split; from a dataset of TensorFlow Datasets by its name."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import operator
import os
import sys
from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from trainers.datasets import digits as _digits  # noqa: F401 - registers its builder


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
        overlap: whether two splits have images in common.
    """

    name: str
    labels: tuple[str, ...]
    sizes: dict[str, int]
    records: Callable[[str], tf.data.Dataset]
    needs_python: bool = False
    class_sizes: dict[str, np.ndarray] | None = None
    files: tuple[tuple[str, ...], str] | None = None
    overlap: Callable[[str, str], bool] = operator.eq

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


def open_dataset(name: str, data_dir: str | os.PathLike | None = None, splits: Iterable[str] = ()) -> Source:
    """Opens a dataset of TensorFlow Datasets by name; prepares it in `data_dir` if it is not prepared there.

    Args:
        name: as in `tfds.builder(name)`, or "digits".
        data_dir: TensorFlow Datasets' own folder; None is its default.
        splits: splits to offer besides the dataset's own: parts and sums of those, such as "train[80%:]", in the
            notation of TensorFlow Datasets. What it does not accept is left out.

    Raises:
        ValueError: as for `find_builder`; or it is ImageNet and not prepared, must first be downloaded by hand, needs
            a package that is missing, or is prepared in a format that tf.data does not read.
        OSError: it cannot be downloaded, or one of its files has a wrong checksum.
    """
    builder = find_builder(name, data_dir)
    if builder.name == "imagenet2012" and not builder.is_prepared():
        raise ValueError(f"imagenet2012 is not prepared in {builder.data_dir}; run sqz-prepare-imagenet first.")
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    except (AssertionError, ImportError) as error:  # files must be downloaded by hand, or the dataset needs a package
        raise ValueError(f"Dataset {name!r} cannot be prepared: {' '.join(str(error).split())}") from error
    except (tfds.download.DownloadError, NonMatchingChecksumError) as error:
        raise OSError(f"Dataset {name!r} cannot be downloaded: {' '.join(str(error).split())}") from error
    if builder.info.file_format not in tfds.core.FileFormat.with_tf_data():
        raise ValueError(
            f"Dataset {name!r} is prepared in {builder.data_dir} as {builder.info.file_format.value}, which tf.data "
            "does not read. Give another --data_dir, where it is prepared as tfrecord."
        )
    infos = dict(builder.info.splits)
    for split in splits:
        with contextlib.suppress(ValueError):
            infos[split] = builder.info.splits[split]
    return Source(
        name=name,
        labels=tuple(builder.info.features["label"].names),
        sizes={split: info.num_examples for split, info in infos.items()},
        records=lambda split: _tfds_records(builder, split),
        overlap=lambda one, other: _overlap(infos[one].file_instructions, infos[other].file_instructions),
    )


def _overlap(ones: list, others: list) -> bool:
    """Whether two splits, as lists of which examples are read from which file, have examples in common."""
    return any(
        one.filename == other.filename and max(one.skip, other.skip) < min(one.skip + one.take, other.skip + other.take)
        for one in ones
        for other in others
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


def check_split(source: Source, split: str) -> int:
    """The number of images of a split.

    Raises:
        ValueError: the source has no such split, or it is empty.
    """
    if source.sizes.get(split, 0) < 1:
        parts = ", or parts of one, such as --train_split=train[:80%] and --validation_split=train[80%:]"
        raise ValueError(
            f"Dataset {source.name!r} has no split {split!r}, only {sorted(source.sizes)}. Name one of these with "
            f"--train_split, --validation_split or --test_split{parts if source.files is None else ''}."
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


def _tfds_records(builder: tfds.core.DatasetBuilder, split: str) -> tf.data.Dataset:
    # A cache would be thrown away, with a warning, whenever a run does not end with an epoch.
    config = tfds.ReadConfig(add_tfds_id=True, try_autocache=False)
    records = builder.as_dataset(split=split, decoders={"image": tfds.decode.SkipDecoding()}, read_config=config)
    key = "file_name" if "file_name" in builder.info.features else "tfds_id"
    return records.map(lambda record: {"image": record["image"], "label": record["label"], "id": record[key]})
