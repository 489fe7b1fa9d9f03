"""ImageNet (ILSVRC2012) from its two official tars: prepared in TensorFlow Datasets' form, and verified."""

from __future__ import annotations

import collections
import os
import pathlib
import re
import shutil
import tarfile
import tempfile

from sqz_keras.architecture.spec import imagenet_wnids
from sqz_keras.files import locked
from sqz_keras.images.files import first_names

NAME = "imagenet2012"
TARS = {"train": "ILSVRC2012_img_train.tar", "validation": "ILSVRC2012_img_val.tar"}
TAR_BYTES = {"train": 147_897_477_120, "validation": 6_744_924_160}
COUNTS = {"train": 1_281_167, "validation": 50_000}
_VALIDATION_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")


def prepare_imagenet(
    manual_dir: str | os.PathLike | None, data_dir: str | os.PathLike | None = None, *, allow_partial: bool = False
) -> dict[str, int]:
    """Prepares imagenet2012 in `data_dir` unless it is already prepared there, and verifies it.

    Args:
        manual_dir: the folder with the two tars; not needed if the dataset is already prepared.
        data_dir: TensorFlow Datasets' own folder; None is its default.
        allow_partial: accept fewer images than ILSVRC2012 has.

    Returns:
        The number of records of each split.

    Raises:
        ValueError: a tar is missing, incomplete, damaged or laid out in another way; the disk is too small; `data_dir`
            holds part of a dataset, or another process is preparing it; or the label of a record is not the one that
            its file name calls for. `data_dir` is then left as it was.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder(NAME, data_dir=data_dir, try_gcs=False)
    if builder.is_prepared():
        return verify(builder, allow_partial=allow_partial)
    if manual_dir is None:
        raise ValueError(f"{NAME} is not prepared in {builder.data_dir}; give --manual_dir, the folder with its tars.")
    manual_dir, final = pathlib.Path(manual_dir), pathlib.Path(builder.data_dir)
    check_tars(manual_dir, allow_partial=allow_partial)
    parent = final.parent
    parent.mkdir(parents=True, exist_ok=True)
    needed, free = sum((manual_dir / name).stat().st_size for name in TARS.values()), shutil.disk_usage(parent).free
    if free < needed:
        raise ValueError(
            f"{parent} has {free:,} bytes free, and the dataset needs {needed:,}; give another --data_dir."
        )
    # It has another name until it is verified, so that no training run finds it earlier.
    with locked(parent), tempfile.TemporaryDirectory(dir=parent, prefix=".preparing-") as staging:
        if final.exists() and any(final.iterdir()):  # or else the final move would fail, hours later
            raise ValueError(
                f"{final} holds files that are in the way. Give the command again if another process has just prepared "
                "it; else move or remove that folder."
            )
        staged = tfds.builder(NAME, data_dir=staging, try_gcs=False)
        config = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False)
        try:
            staged.download_and_prepare(download_dir=pathlib.Path(staging) / "downloads", download_config=config)
        except (tarfile.TarError, AssertionError) as error:  # AssertionError: no images, or one that is there twice
            raise ValueError(
                f"A tar in {manual_dir}, or in one of its tars, is damaged, empty or has an image twice: "
                f"{' '.join(str(error).split()):.300}. Download it again."
            ) from error
        counts = verify(staged, allow_partial=allow_partial)
        os.replace(staged.data_dir, final)
    return counts


def check_tars(manual_dir: pathlib.Path, *, allow_partial: bool) -> None:
    """Refuses tars from which a wrong dataset would be made.

    TensorFlow Datasets labels validation images by their place in the sorted list of names, so a missing image shifts
    the labels of all that follow.

    Raises:
        ValueError: a tar is missing, or its size or names are not those of the official one.
    """
    for split, name in TARS.items():
        path = manual_dir / name
        if not path.is_file():
            raise ValueError(f"{path} is missing. Download it from https://image-net.org after registering there.")
        size = path.stat().st_size
        if size != TAR_BYTES[split] and not allow_partial:
            raise ValueError(
                f"{path} has {size:,} bytes, and the official one {TAR_BYTES[split]:,}: the download is not complete, "
                "or it is a subset (then pass --allow_partial)."
            )
    wnids = {f"{wnid}.tar" for wnid in imagenet_wnids()}
    train = _names(manual_dir / TARS["train"])
    strange = [name for name in train if name not in wnids]
    if strange or not train:
        raise ValueError(f"{TARS['train']} must hold one tar per class, such as n01440764.tar; {_some(strange)}.")
    if len(set(train)) != len(train) or (len(train) != len(wnids) and not allow_partial):
        raise ValueError(f"{TARS['train']} must hold {len(wnids)} tars, one per class, and holds {len(train)}.")
    _check_validation_names(_names(manual_dir / TARS["validation"]), allow_partial)


def _check_validation_names(names: list[str], allow_partial: bool) -> None:
    matches = [_VALIDATION_NAME.fullmatch(name) for name in names]
    strange = [name for name, match in zip(names, matches, strict=True) if match is None]
    if strange or not names:
        raise ValueError(
            f"{TARS['validation']} must hold images named such as ILSVRC2012_val_00000001.JPEG; {_some(strange)}."
        )
    ids = sorted(int(match[1]) for match in matches)
    expected = len(ids) if allow_partial else COUNTS["validation"]
    if expected > COUNTS["validation"] or ids != list(range(1, expected + 1)):
        missing = sorted(set(range(1, ids[-1] + 1)) - set(ids))
        raise ValueError(
            f"{TARS['validation']} must hold the images 1 to {expected}, each once, and holds {len(ids)} up to "
            f"{ids[-1]}, missing {_some(missing)}. TensorFlow Datasets labels them by their place in the list of "
            "names, so most labels would be wrong."
        )


def _names(path: pathlib.Path) -> list[str]:
    try:
        with tarfile.open(path, "r:") as tar:
            return tar.getnames()
    except tarfile.TarError as error:
        raise ValueError(f"{path} is not a readable tar: {error}. Download it again.") from error


def _some(items: list) -> str:
    return first_names(items) or "it holds none"


def verify(builder, *, allow_partial: bool) -> dict[str, int]:
    """Compares the label of every record with the one that its file name calls for.

    Args:
        builder: the builder of imagenet2012, already prepared.
        allow_partial: accept fewer images than ILSVRC2012 has.

    Returns:
        The number of records of each split.

    Raises:
        ValueError: a split is missing, a count or a label is wrong, or the classes are not in the project's order.
    """
    from trainers.progress import progress_bar, say

    wnids = imagenet_wnids()
    where = f"{NAME} in {builder.data_dir}"
    if tuple(builder.info.features["label"].names) != wnids:
        raise ValueError(f"The classes of {where} are not ImageNet's 1000 in the order of their wnids.")
    counts = {}
    for split in TARS:
        if split not in builder.info.splits:
            raise ValueError(f"{where} has no {split} split. Remove it and prepare it again from both tars.")
        expected = _expected_labels(split)
        seen, wrong, not_jpeg = collections.Counter(), [], []
        with progress_bar(builder.info.splits[split].num_examples, f"{split} record") as bar:
            for name, label, start in _file_names_and_labels(builder, split):
                seen[name] += 1
                if expected(name) != wnids[label]:
                    wrong.append(name)
                if start != b"\xff\xd8\xff":
                    not_jpeg.append(name)
                bar.update()
        counts[split] = sum(seen.values())
        if wrong:
            raise ValueError(f"{where}: {len(wrong)} {split} records have a wrong label, such as {_some(wrong)}.")
        if len(seen) != counts[split] or (counts[split] != COUNTS[split] and not allow_partial):
            raise ValueError(
                f"{where} has {counts[split]:,} {split} records of {len(seen):,} names; expected {COUNTS[split]:,}."
            )
        if not_jpeg:
            say(f"sqz-prepare-imagenet: {len(not_jpeg)} {split} records are not JPEG: {_some(not_jpeg)}")
    return counts


def _expected_labels(split: str):
    """A function from a file name to the wnid that must be its label, or to None for a strange name."""
    import tensorflow_datasets as tfds

    if split == "train":
        return lambda name: name.split("_")[0]
    path = pathlib.Path(tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt"))
    labels = path.read_text("utf-8").split()

    def of_validation(name):
        match = _VALIDATION_NAME.fullmatch(name)
        return labels[int(match[1]) - 1] if match and 1 <= int(match[1]) <= len(labels) else None

    return of_validation


def _file_names_and_labels(builder, split: str):
    """Yields (file name, class index, first three bytes of the image) of each record."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    records = builder.as_dataset(
        split=split,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(try_autocache=False),
    )
    batches = records.map(lambda r: (r["file_name"], r["label"], tf.strings.substr(r["image"], 0, 3))).batch(256)
    for names, labels, starts in batches.prefetch(2).as_numpy_iterator():
        for name, label, start in zip(names.tolist(), labels.tolist(), starts.tolist(), strict=True):
            yield name.decode("utf-8", "replace"), label, start
