"""Files that appear whole or not at all, folders in which one process works at a time, and what files may hold."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import uuid
from collections.abc import Iterator, Mapping, Sequence

LFS_POINTER = b"version https://git-lfs.github.com/"  # how a file of Git LFS begins whose content was not fetched


def check_writable(path: str | os.PathLike) -> None:
    """Refuses a file that could not be written, before the work whose result it is to hold.

    Raises:
        ValueError: `path` is a folder, or the folder that it belongs in does not exist or takes no files.
    """
    path = pathlib.Path(path)
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise ValueError(f"{path} must be a file in an existing folder that you may write to.")


def check_is_no_input(flag: str, path: str | os.PathLike, inputs: Mapping[str, str | os.PathLike | None]) -> None:
    """Refuses an output file that is also an input.

    Args:
        flag: The name of the flag that names the file.
        path: The output file.
        inputs: Input files by what the message calls them, such as "--model"; None for those that are not given.

    Raises:
        ValueError: The output is one of the inputs.
    """
    for name, read in inputs.items():
        if read and os.path.realpath(read) == os.path.realpath(path):
            raise ValueError(f"--{flag}={os.fspath(path)} would replace {name}: give another name.")


def write_file(path: str | os.PathLike, data: bytes) -> None:
    """Writes a file whole or not at all, and flushes it to the disk; an existing file is replaced.

    Several processes may write the same file at once; it then holds what one of them wrote.

    Raises:
        OSError: It cannot be written; what was there before is still there.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # as of a full disk
            error.filename = os.fspath(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: str | os.PathLike) -> None:
    """Flushes a file, or the names in a folder, to the disk, so that no file written later can survive without it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str | os.PathLike, value: object) -> None:
    """Writes a value as JSON, whole or not at all.

    Args:
        path: The file; its folder exists.
        value: What `json.dumps` takes.

    Raises:
        OSError: It cannot be written; what was there before is still there.
    """
    write_file(path, (json.dumps(value, indent=1) + "\n").encode())


def distinct_keys(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """A JSON object as `json.loads` makes it by its `object_pairs_hook`, which otherwise takes the last of equal keys.

    Raises:
        ValueError: A key occurs twice.
    """
    result = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"{key!r:.80} occurs twice in one object")
        result[key] = value
    return result


class InUseError(ValueError):
    """Another process works in a folder, or on a file."""


@contextlib.contextmanager
def locked(folder: str | os.PathLike) -> Iterator[None]:
    """Keeps other processes that call this out of a folder. A killed process leaves no lock.

    On a file system without locks, nothing is kept out.

    Raises:
        InUseError: Another process works in the folder.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        lock(descriptor, f"Another process works in {os.fspath(folder)}; wait, or choose another folder.")
        yield
    finally:
        os.close(descriptor)


def lock(descriptor: int, message: str) -> None:
    """Locks an open file or folder until it is closed, as `locked` does.

    Args:
        descriptor: File descriptor of the open file or folder.
        message: What the error says.

    Raises:
        InUseError: It is locked already.
    """
    import fcntl  # not on Windows

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InUseError(message) from error
    except OSError:  # the file system has no locks, or none for folders
        pass
