"""A user's own images, one folder per class, as a source of labelled images."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from sqz_keras.images.files import SUFFIXES, first_names, report_left_out, report_misplaced, split_by_suffix, visible
from trainers.data.image_reader import composed
from trainers.data.source import Source
from trainers.progress import say

# The folders that are splits, by the split's name.
_SPLIT_FOLDERS = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}
_SPLIT_NAMES = {name for names in _SPLIT_FOLDERS.values() for name in names}
_EVERY_FIFTH = 5
_DECODED_BY_TENSORFLOW = (".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".png")


def open_image_dir(image_dir: str | os.PathLike) -> Source:
    """The images of `image_dir`; their labels are the sorted names of the class folders.

    Args:
        image_dir: holds the folders "train", "val" (or "validation" or "valid") and optionally "test", each with one
            folder of images per class. Or it holds the class folders themselves: then every fifth image of a class, by
            name, is for validation and the others for training. Hidden files and folders are skipped. Files without
            the suffix of an image, links to nothing, and images outside the class folders or deeper in them, are left
            out and counted on stderr; so are images in other folders beside "train", and the classes that a split
            lacks.

    Returns:
        A source with the splits "train" and "validation", and "test" if there is one. Its ids are paths below
            `image_dir`; its records come in a fixed order that mixes the classes.

    Raises:
        ValueError: `image_dir` is not a folder; there are fewer than two classes; a class or split has no images, or a
            class has too few to be split; beside 'train' there is no folder of the validation split, or there are
            several; or another split has a class that the training split lacks.
    """
    root = pathlib.Path(image_dir)
    if not root.is_dir():
        raise ValueError(f"--image_dir={image_dir} is not a folder.")
    folders = {path.name: path for path in visible(root) if path.is_dir()}
    if "train" in folders:
        validation = [name for name in _SPLIT_FOLDERS["validation"] if name in folders]
        if len(validation) > 1:
            raise ValueError(f"{root} holds {' and '.join(validation)}; expected one of them beside 'train'.")
        report_left_out(root, [path for path in visible(root) if not path.exists()])
        report_misplaced(root, [], [path for name, path in folders.items() if name not in _SPLIT_NAMES])
        classes = {
            split: _images(folders[name])
            for split, names in _SPLIT_FOLDERS.items()
            for name in names
            if name in folders
        }
        if not validation:
            raise ValueError(
                f"{root} holds the folder 'train'; expected 'val' beside it. Name the folder of the validation split "
                f"so, or give --image_dir={root / 'train'}, of which every fifth image is then for validation."
            )
    else:
        classes = _split_by_position(_images(root))
    labels = tuple(sorted(classes["train"]))
    for split, paths in classes.items():
        unknown = sorted(set(paths) - set(labels))
        if unknown:
            raise ValueError(f"{root}: the {split} split holds {unknown[0]!r}, a class that the train split lacks.")
        lacking = [label for label in labels if label not in paths]
        if lacking:
            say(
                f"{root}: the {split} split has no images of {len(lacking)} of {len(labels)} classes, whose accuracy "
                f"is not measured there: {first_names(lacking)}"
            )
    if len(labels) < 2:
        raise ValueError(
            f"{root} holds one class, {labels[0]!r}; expected a folder of images for each class, and at least two."
        )
    files = {split: _mixed(paths, labels) for split, paths in classes.items()}
    return Source(
        name=str(root),
        labels=labels,
        sizes={split: len(paths) for split, (paths, _) in files.items()},
        records=lambda split: file_records(root, *files[split]),
        class_sizes={split: np.bincount(indices, minlength=len(labels)) for split, (_, indices) in files.items()},
        needs_python=any(
            not path.lower().endswith(_DECODED_BY_TENSORFLOW) for paths, _ in files.values() for path in paths
        ),
        files=(tuple(path for split in sorted(files) for path in files[split][0]), str(root)),
    )


def check_is_no_class(folder: str | os.PathLike, image_dir: str | os.PathLike) -> None:
    """Refuses an output folder that `open_image_dir` would take for a class folder or for a part of one.

    Raises:
        ValueError: It is in `image_dir`, and neither hidden nor beside the folders of the splits.
    """
    root, real = pathlib.Path(os.path.realpath(image_dir)), pathlib.Path(os.path.realpath(folder))
    inside = real.relative_to(root).parts if real.is_relative_to(root) else (".",)
    is_beside = (root / "train").is_dir() and inside[:1] not in {(name,) for name in _SPLIT_NAMES}
    if not (is_beside or any(part.startswith(".") for part in inside)):
        raise ValueError(
            f"--workdir={os.fspath(folder)} is in --image_dir={os.fspath(image_dir)}, where it would become a class; "
            "give another one."
        )


def _images(root: pathlib.Path) -> dict[str, list[str]]:
    """The sorted paths of each class's images, by class."""
    classes, folders, left_out = {}, [], []
    for folder in visible(root):
        if folder.is_dir():
            images, others = split_by_suffix(folder.iterdir())
            left_out += others
            if not images:
                deeper = any(path.is_dir() for path in visible(folder))
                hint = f" If the folders in it are the classes, give --image_dir={folder}." * deeper
                raise ValueError(
                    f"{folder} holds no images ({', '.join(SUFFIXES)}); those of a class must be in its folder itself, "
                    f"and the splits must be called 'train', 'val' and 'test'.{hint}"
                )
            folders.append(folder)
            classes.setdefault(composed(folder.name), []).extend(map(str, images))
        elif not folder.exists():  # the link to a class whose disk is not there
            left_out.append(folder)
    report_left_out(root, left_out)
    report_misplaced(root, folders)
    if not classes:
        hint = f" If {root.name!r} is a class itself, give its folder another name." * (root.name in _SPLIT_NAMES)
        raise ValueError(f"{root} holds no folders; expected one per class, with images in it.{hint}")
    return classes


def _split_by_position(classes: dict[str, list[str]]) -> dict[str, dict[str, list[str]]]:
    few = [label for label, paths in classes.items() if len(paths) < _EVERY_FIFTH]
    if few:
        raise ValueError(
            f"Class {few[0]!r} is too small, with {len(classes[few[0]])} of the {_EVERY_FIFTH} images that it takes to "
            "split a class into training and validation. Add some, or sort them into the folders 'train' and 'val' "
            "yourself."
        )
    last = _EVERY_FIFTH - 1
    return {
        "train": {
            label: [path for place, path in enumerate(paths) if place % _EVERY_FIFTH != last]
            for label, paths in classes.items()
        },
        "validation": {label: paths[last::_EVERY_FIFTH] for label, paths in classes.items()},
    }


def _mixed(classes: dict[str, list[str]], labels: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    """Paths and class indices in a fixed order that mixes the classes: a small shuffle buffer alone would not."""
    pairs = [(path, index) for index, label in enumerate(labels) for path in classes.get(label, ())]
    order = np.random.default_rng(0).permutation(len(pairs))
    return [pairs[place][0] for place in order], np.array([pairs[place][1] for place in order], np.int64)


def file_records(root: str | os.PathLike, paths: Sequence[str], labels: np.ndarray) -> tf.data.Dataset:
    """The records of image files below a folder: their bytes, their labels, and their paths relative to it."""
    ids = [os.fsencode(pathlib.Path(path).relative_to(root).as_posix()) for path in paths]

    def read(path, label, name):
        return {"image": tf.io.read_file(path), "label": label, "id": name}

    # Reads some files ahead, so that on a slow disk it does not wait for one file at a time.
    return tf.data.Dataset.from_tensor_slices((list(map(os.fsencode, paths)), labels, ids)).map(
        read, num_parallel_calls=16
    )
