"""Zip archives (`.keras`, torch's `.pth`) whose members are not compressed, read within limits."""

from __future__ import annotations

import contextlib
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator

from sqz_keras.weights.arrays import WeightsFileError, file_size, refuse

_MAX_DIRECTORY_BYTES = 1 << 20
_END, _END64, _LOCATOR64 = 22, 56, 20
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    EOFError,
    KeyError,
    OSError,
)


@contextlib.contextmanager
def open_archive(path: str | os.PathLike) -> Iterator[zipfile.ZipFile]:
    """Opens a zip archive whose directory is of a reasonable size.

    Raises:
        WeightsFileError: the file is not a zip archive, is too large, or is damaged.
    """
    size = file_size(path)
    with open(path, "rb") as file:
        file.seek(max(0, size - _END - _LOCATOR64 - _END64))
        _check_directory_size(path, file.read())
    with contextlib.ExitStack() as stack:
        with refuse(path, *_ZIP_ERRORS):
            archive = stack.enter_context(zipfile.ZipFile(path))
        yield archive


def read_member(path: str | os.PathLike, archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """One member's content, verified by its checksum.

    Raises:
        WeightsFileError: there is no such member, or it is compressed, encrypted, damaged or above `limit` bytes.
    """
    if name not in archive.NameToInfo:
        raise WeightsFileError(f"{path}: expected {name!r} in the archive, got {archive.namelist()[:8]}.")
    member = archive.getinfo(name)
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        raise WeightsFileError(f"{path}: {name} must be stored without compression; save the file again.")
    if member.file_size > limit:
        raise WeightsFileError(f"{path}: {name} has {member.file_size} bytes; at most {limit} were expected.")
    with refuse(path, *_ZIP_ERRORS):
        return archive.read(name)


def _check_directory_size(path: str | os.PathLike, tail: bytes) -> None:
    """Bounds the directory, which `zipfile` turns into objects of many times its size."""
    end = tail[-_END:]
    if not end.startswith(b"PK\5\6") or end[-2:] != b"\0\0":
        raise WeightsFileError(
            f"{path}: expected a zip archive without a comment; the file is truncated or another kind. Fetch or save "
            "it again."
        )
    sizes = [int.from_bytes(end[12:16], "little")]
    locator = tail[-_END - _LOCATOR64 : -_END]
    if locator.startswith(b"PK\6\7"):
        end64 = tail[: -_END - _LOCATOR64][-_END64:]
        if not end64.startswith(b"PK\6\6"):
            raise WeightsFileError(f"{path}: the archive's directory is damaged.")
        sizes = [int.from_bytes(end64[40:48], "little"), sizes[0] if sizes[0] != 0xFFFFFFFF else 0]
    if max(sizes) > _MAX_DIRECTORY_BYTES:
        raise WeightsFileError(f"{path}: the archive's directory has {max(sizes)} bytes; this is not a model.")
