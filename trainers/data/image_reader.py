"""Finds the labelled images of a folder and their classes, and reads them in threads."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import os
import pathlib
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np

from sqz_keras.architecture.spec import ModelSpec, imagenet_wnids
from sqz_keras.images.files import (
    SUFFIXES,
    first_names,
    read_images,
    report_left_out,
    report_misplaced,
    split_by_suffix,
    visible,
)
from sqz_keras.images.preprocessing import prepare_image
from trainers.progress import say

_THREADS = min(8, os.cpu_count() or 1)


def class_labels(spec: ModelSpec) -> tuple[str, ...]:
    """The labels of a model's classes, in order; if 1000 classes have no names, ImageNet's wnids are their labels.

    Raises:
        ValueError: the labels are unknown.
    """
    if spec.labels is None and spec.classes != len(imagenet_wnids()):
        raise ValueError(
            f"The model has {spec.classes} classes without labels, so images cannot be matched to them. Give a text "
            "file with the name of a class on each line, in the order of the class indices: --labels=FILE.txt."
        )
    return spec.labels or imagenet_wnids()


def find_labelled_images(image_dir: str | os.PathLike, labels: Sequence[str]) -> list[tuple[pathlib.Path, int]]:
    """The images of a folder and their class indices, sorted by path.

    Args:
        image_dir: a folder that holds one folder of images per class, named after its label; or images named
            `<label>_<anything>.<suffix>`. Files without the suffix of an image, links to nothing, and images outside
            the class folders or deeper in them, are left out and counted on stderr; class folders without images are
            named there.
        labels: in the order of the class indices.

    Raises:
        ValueError: `image_dir` is not a folder or holds no images, or a folder or image in it matches no label.
    """
    root = pathlib.Path(image_dir)
    if not root.is_dir():
        raise ValueError(f"--image_dir={image_dir} is not a folder.")
    indices = {form(label): index for form in (composed, str) for index, label in enumerate(labels)}
    paths = visible(root)
    folders = [path for path in paths if path.is_dir()]
    labelled, unmatched, empty = [], [], []
    left_out = [path for path in paths if not path.exists()] if folders else []
    for path in folders or paths:
        index = _index_of(path.name, indices) if folders else _index_of_prefix(path.stem, indices)
        images, others = split_by_suffix(path.iterdir() if folders else [path])
        left_out += others
        if index is not None:
            labelled += [(image, index) for image in images]
            empty += [path.name] if folders and not images else []
        elif images:
            unmatched.append(path.name)
        elif folders:
            unmatched.append(f"{path.name}/")
    report_left_out(root, left_out)
    if folders:
        report_misplaced(root, folders)
    if unmatched:
        splits = [
            path for path in folders if any(_index_of(inner.name, indices) is not None for inner in path.iterdir())
        ]
        raise ValueError(
            f"{root}: expected {'folders named' if folders else 'images whose names start with'} "
            f"{_example(labels, folders)}; {len(unmatched)} match no label of the model, first {unmatched[0]!r}."
            + f" Such folders are in {first_names(splits)}: give one of these as --image_dir."
            * bool(splits)
        )
    if empty and labelled:
        say(f"{root}: not measured, since there are no images in the folders of these classes: {first_names(empty)}")
    if not labelled:
        raise ValueError(
            f"{root} holds no images ({', '.join(SUFFIXES)}); expected folders named, or images whose names "
            f"start with, {_example(labels, folders)}."
        )
    return labelled


def read_inputs(images: Sequence[pathlib.Path], spec: ModelSpec) -> np.ndarray:
    """Network inputs, float32 (N, S, S, 3), of unlabelled images; unreadable ones are skipped and named on stderr.

    Raises:
        ValueError: None of the images could be read.
    """
    inputs = []
    for batch in read_batches([(image, None) for image in images], spec, 32):
        for error in batch.errors:
            say(f"Skipped: {error}")
        inputs += batch.inputs
    if not inputs:
        raise ValueError(f"None of the {len(images)} images could be read, first {images[0]}.")
    return np.stack(inputs)


def _example(labels: Sequence[str], folders: list) -> str:
    return (
        f"by the model's labels, such as {labels[0]!r}" if folders else f"a label of the model, such as '{labels[0]}_'"
    )


def composed(name: str) -> str:
    """The name of a class folder as most systems write it: a Mac may write the é in it as two characters."""
    return unicodedata.normalize("NFC", name)


def _index_of(name: str, indices: dict[str, int]) -> int | None:
    return indices.get(name, indices.get(composed(name)))


def _index_of_prefix(stem: str, indices: dict[str, int]) -> int | None:
    """The class of the longest label that the name starts with, up to an underscore."""
    parts = stem.split("_")
    prefixes = ("_".join(parts[:count]) for count in range(len(parts) - 1, 0, -1))
    return next((index for prefix in prefixes if (index := _index_of(prefix, indices)) is not None), None)


@dataclasses.dataclass(frozen=True)
class ReadBatch:
    """The result of reading some consecutive images of a list.

    Args:
        inputs: Network inputs of the images that could be read, float32 (S, S, 3) each.
        labels: Their class indices, or None for unlabelled images.
        positions: Their places in the list.
        errors: What is wrong with each of the other images; the message names the file.
    """

    inputs: list[np.ndarray]
    labels: list[int | None]
    positions: list[int]
    errors: list[Exception]


def read_batches(
    images: Sequence[tuple[pathlib.Path, int | None]], spec: ModelSpec, batch_size: int
) -> Iterator[ReadBatch]:
    """Reads images in order, `batch_size` at a time; one that cannot be read does not stop the others.

    While the caller works on one batch, the next one is read, and no others.
    """
    prepare = functools.partial(prepare_image, spec=spec)
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        ahead = collections.deque()
        for start in range(0, len(images), batch_size):
            paths, labels = zip(*images[start : start + batch_size], strict=True)
            ahead.append((read_images(paths, prepare, pool.map), labels, start))
            if len(ahead) > 1:
                yield _collect(*ahead.popleft())
        while ahead:
            yield _collect(*ahead.popleft())


def _collect(images: Iterator[tuple], labels: Sequence[int | None], start: int) -> ReadBatch:
    batch = ReadBatch([], [], [], [])
    for position, ((_, inputs, error), label) in enumerate(zip(images, labels, strict=True), start):
        if error is None:
            batch.inputs.append(inputs)
            batch.labels.append(label)
            batch.positions.append(position)
        else:
            batch.errors.append(error)
    return batch
