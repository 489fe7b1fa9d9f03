"""Checkpoints: one file per checkpoint, written whole or not at all, and listed by step; numpy only.

A checkpoint is an uncompressed `.npz` of named arrays, one of which is JSON text with everything that is not an array.
It is written under a temporary name in the same folder, flushed to the disk and renamed. If a file is damaged in spite
of this, it is skipped and the one before it is used.
"""

from __future__ import annotations

import io
import json
import os
import pathlib
import re
import zipfile
from collections.abc import Mapping

import numpy as np

from sqz_keras.files import write_file

_NAME = re.compile(r"step-(\d{9})\.npz")
_META = "meta.json"


def save(folder: str | os.PathLike, step: int, arrays: Mapping[str, np.ndarray], meta: Mapping) -> pathlib.Path:
    """Writes the checkpoint of `step`, replacing one of the same step.

    Args:
        folder: Folder of the checkpoints; it is made if it does not exist.
        step: Number of updates done.
        arrays: Arrays by name.
        meta: Values that JSON can hold.

    Raises:
        OSError: It could not be written (because the disk is full, for example); earlier checkpoints are unchanged.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = _path(folder, step)
    text = np.frombuffer(json.dumps({"names": sorted(arrays), "meta": meta}).encode(), np.uint8)
    archive = io.BytesIO()
    np.savez(archive, **{_META: text}, **arrays)
    write_file(path, archive.getbuffer())
    return path


def steps(folder: str | os.PathLike) -> list[int]:
    """The steps of the checkpoints in a folder, ascending, including unreadable ones."""
    if not os.path.isdir(folder):
        return []
    return sorted(int(match[1]) for name in os.listdir(folder) if (match := _NAME.fullmatch(name)))


def load_newest(folder: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict] | None:
    """The arrays and meta of the newest checkpoint that is whole, or None if there are no checkpoints.

    Raises:
        ValueError: There are checkpoints, but none of them can be read.
    """
    errors = []
    for step in reversed(steps(folder)):
        try:
            return load(folder, step)
        except (OSError, ValueError) as error:
            errors.append(str(error))
    if errors:
        raise ValueError(
            "No checkpoint can be read; restore one, or remove the folder to start again. " + "; ".join(errors)
        )
    return None


def load(folder: str | os.PathLike, step: int) -> tuple[dict[str, np.ndarray], dict]:
    """The arrays and meta of one checkpoint.

    Raises:
        OSError, ValueError: It does not exist, or is damaged.
    """
    return _read(_path(folder, step))


def prune(folder: str | os.PathLike, keep: int, always: set[int]) -> None:
    """Removes all but the newest `keep` checkpoints and those in `always`, and the temporary files of killed runs."""
    for step in steps(folder)[:-keep]:
        if step not in always:
            _path(folder, step).unlink(missing_ok=True)  # another process may have removed it
    for leftover in pathlib.Path(folder).glob(".step-*.tmp"):
        leftover.unlink(missing_ok=True)


def _path(folder: str | os.PathLike, step: int) -> pathlib.Path:
    return pathlib.Path(folder, f"step-{step:09d}.npz")


def _read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}  # reading an array checks its checksum
        header = json.loads(arrays.pop(_META).tobytes())
        if header["names"] != sorted(arrays):
            raise ValueError("its arrays are not those that were saved")
        return arrays, header["meta"]
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"{path}: a damaged checkpoint: {error}.") from error
