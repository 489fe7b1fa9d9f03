"""The folders of served versions: lists them, and adds a new one whole or not at all. It does not need TensorFlow."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator

from export.contract import MAX_VERSION
from sqz_keras.files import sync

AUTO = "auto"


def list_versions(base_path: str | os.PathLike) -> dict[int, pathlib.Path]:
    """The versions under a folder, by number, ascending; empty if the folder does not exist.

    As in TensorFlow Serving, every folder whose name is a positive integer is a version, and nothing else is.
    """
    base_path = pathlib.Path(base_path)
    if not base_path.is_dir():
        return {}
    folders = {_number(path.name): path for path in base_path.iterdir() if path.is_dir()}
    return {number: folders[number] for number in sorted(filter(None, folders))}


def _number(text: str) -> int | None:
    """The version number that a folder's name stands for, or None if it is not the name of a version."""
    is_number = text.isascii() and text.isdigit() and len(text) < 20
    return int(text) if is_number and 1 <= int(text) <= MAX_VERSION else None


def newest(base_path: str | os.PathLike) -> tuple[int, pathlib.Path]:
    """The newest version under a folder, and its folder.

    Raises:
        ValueError: There is no version.
    """
    folders = list_versions(base_path)
    if not folders:
        raise ValueError(
            f"{os.fspath(base_path)}: expected a folder whose subfolders are versions (1, 2, ...), got "
            f"{_instead_of_versions(pathlib.Path(base_path))}"
        )
    return max(folders.items())


def _instead_of_versions(folder: pathlib.Path) -> str:
    """What a folder without versions is, and what to do: often it is a level too high or too low."""
    if not folder.is_dir():
        return "no folder. Write a version with sqz-export --base_path=..."
    if (folder / "saved_model.pb").exists():
        return f"a version itself. Give the folder that holds it: {folder.absolute().parent}"
    below = sorted(path for path in folder.iterdir() if os.access(path, os.R_OK) and list_versions(path))
    if below:
        return f"folders of versions. Give one of these: {', '.join(map(str, below[:3]))}"
    return "none. Write one with sqz-export --base_path=..."


def choose_version(base_path: str | os.PathLike, model_version: int | str, keep_versions: int = 0) -> int:
    """The number that a new version gets: the requested one, or, with "auto", the newest plus 1.

    Raises:
        ValueError: `base_path` is a file, `model_version` is neither "auto" nor a positive integer, that version exists
            already, or it would not be among the newest `keep_versions` (0 keeps all).
    """
    if os.path.lexists(base_path) and not os.path.isdir(base_path):
        raise ValueError(f"{os.fspath(base_path)} is not a folder; --base_path=DIR gets a folder for each version.")
    versions = list_versions(base_path)
    if model_version == AUTO:
        return max(versions, default=0) + 1
    number = _number(str(model_version))
    if number is None:
        raise ValueError(f"model_version must be {AUTO!r} or a positive integer, got {model_version!r}.")
    if number in versions or os.path.lexists(os.path.join(base_path, str(number))):
        raise _taken(base_path, number)
    if keep_versions and number not in sorted({*_removable(base_path), number})[-keep_versions:]:
        raise ValueError(
            f"Version {number} would be removed at once: {os.fspath(base_path)} has newer ones, and --keep_versions="
            f"{keep_versions} keeps the newest. Use --model_version={AUTO}, or keep more."
        )
    return number


@dataclasses.dataclass
class NewVersion:
    """A version that is being made.

    Args:
        folder: The folder to fill.
        version: The number that it is to get; after the block of `new_version`, the number that it has.
    """

    folder: pathlib.Path
    version: int


@contextlib.contextmanager
def new_version(base_path: str | os.PathLike, version: int, *, or_next: bool = False) -> Iterator[NewVersion]:
    """Gives an empty folder to fill, and makes it version `version` when the block ends without an exception.

    Until it is complete and on disk, the folder has a name that no server loads; then it is renamed. After an
    exception it is removed. If the process is killed, the folder is left under the name that no server loads.

    Args:
        base_path: The folder of all versions.
        version: The number.
        or_next: If another process creates this version in the meantime, take the next free number.

    Raises:
        ValueError: Another process created the version in the meantime, and `or_next` is False.
    """
    base_path = pathlib.Path(base_path)
    base_path.mkdir(parents=True, exist_ok=True)
    temporary = base_path / f".tmp-{version}-{uuid.uuid4().hex}"
    temporary.mkdir()
    new = NewVersion(temporary, version)
    try:
        yield new
        _sync_tree(temporary)
        while not _renamed(temporary, base_path / str(new.version)):
            if not or_next:
                raise _taken(base_path, version)
            new.version = max(new.version + 1, choose_version(base_path, AUTO))
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync(base_path)


def _renamed(folder: pathlib.Path, target: pathlib.Path) -> bool:
    """Renames a folder unless the new name is taken; returns whether it did."""
    if os.path.lexists(target):
        return False
    try:
        os.rename(folder, target)  # of two concurrent exports the later fails: rename replaces no folder that has files
    except OSError:
        if os.path.lexists(target):
            return False
        raise
    return True


def prune(base_path: str | os.PathLike, keep_versions: int) -> list[int]:
    """Removes all versions but the newest `keep_versions`, oldest first, and returns the numbers of those removed.

    A version is first renamed to a name that no server loads, so a server sees it whole or not at all. If a version is
    a link, only the link is removed. Folders that hold anything but a SavedModel are kept.
    """
    if keep_versions < 1:
        raise ValueError(f"keep_versions must be at least 1, got {keep_versions}.")
    base_path, folders = pathlib.Path(base_path), _removable(base_path)
    removed = []
    for version in list(folders)[:-keep_versions]:
        hidden = base_path / f".old-{version}-{uuid.uuid4().hex}"
        try:
            os.rename(folders[version], hidden)
        except FileNotFoundError:  # another process removed it
            continue
        removed.append(version)
        sync(base_path)
        if hidden.is_symlink():
            hidden.unlink()
        else:
            shutil.rmtree(hidden)
    return removed


def _removable(base_path: str | os.PathLike) -> dict[int, pathlib.Path]:
    """The versions of `list_versions` whose folders are empty or hold a SavedModel."""
    removable = {}
    for version, folder in list_versions(base_path).items():
        with contextlib.suppress(FileNotFoundError):  # another process removes versions too
            if (folder / "saved_model.pb").is_file() or not any(folder.iterdir()):
                removable[version] = folder
    return removable


def _taken(base_path: str | os.PathLike, version: int) -> ValueError:
    return ValueError(
        f"{os.fspath(base_path)} has a version {version} already, and versions are never overwritten. Use "
        f"--model_version={AUTO} or a higher number, or remove that folder first."
    )


def _sync_tree(folder: pathlib.Path) -> None:
    for root, _, files in os.walk(folder):
        for name in files:
            sync(os.path.join(root, name))
        sync(root)
