"""Packs files and folders into a tar file whose bytes depend on their names and contents alone.

python -m export.serving_tar --output=FILE.tar --entry=models/squeezenet=serving/squeezenet

It is a layer for an image of TensorFlow Serving, which reads /models/<name>/<version>. --entry may be repeated.
"""

from __future__ import annotations

import io
import os
import pathlib
import tarfile
from collections.abc import Iterable

from absl import flags

from sqz_keras import command
from sqz_keras.files import write_file


def pack(output: str | os.PathLike, entries: Iterable[tuple[str, str | os.PathLike]]) -> None:
    """Writes a tar file, whole or not at all: names sorted, times 0, owner and group 0, modes 755 and 644.

    Args:
        output: The tar file; an older one is replaced.
        entries: Pairs of a path in the tar file and the file or folder to put there. Folders with the same path are
            merged.

    Raises:
        ValueError: Two files have the same path, or a path is absolute or leads upwards.
        OSError: A file cannot be read, or the tar file cannot be written.
    """
    members: dict[str, pathlib.Path | None] = {}  # None for a folder
    for name, path in entries:
        for member, source in _members(pathlib.PurePosixPath(name), pathlib.Path(path)):
            if member in members and not (source is None and members[member] is None):
                raise ValueError(f"Two files would be {member} in {os.fspath(output)}: give them different paths.")
            members[member] = source
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in sorted(members):
            _add(archive, member, members[member])
    write_file(output, packed.getvalue())


def _members(name: pathlib.PurePosixPath, path: pathlib.Path) -> Iterable[tuple[str, pathlib.Path | None]]:
    """Pairs of a path in the tar file and its file (None for a folder): all of `path`, and the folders above `name`."""
    if name.is_absolute() or ".." in name.parts or not name.parts:
        raise ValueError(f"A path in the tar file must be relative and below its root, got {str(name)!r}.")
    for parent in name.parents[:-1]:
        yield str(parent), None
    if not path.is_dir():
        yield str(name), path
        return
    for folder, _, files in os.walk(path, followlinks=True):  # a build's sandbox consists of links
        inside = name / pathlib.Path(folder).relative_to(path).as_posix()
        yield str(inside), None
        for file in files:
            yield str(inside / file), pathlib.Path(folder, file)


def _add(archive: tarfile.TarFile, member: str, source: pathlib.Path | None) -> None:
    entry = tarfile.TarInfo(member)  # times, owner and group are 0
    if source is None:
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(entry)
        return
    entry.mode = 0o644
    with source.open("rb") as content:
        entry.size = os.fstat(content.fileno()).st_size
        archive.addfile(entry, content)


def define_flags() -> None:
    flags.DEFINE_string("output", None, "The tar file.", required=True)
    flags.DEFINE_multi_string("entry", None, "PATH_IN_TAR=FILE_OR_FOLDER.", required=True)


def main(argv) -> None:
    del argv
    entries = []
    for entry in flags.FLAGS.entry:
        name, separator, path = entry.partition("=")
        if not separator:
            raise ValueError(f"--entry must be PATH_IN_TAR=FILE_OR_FOLDER, got {entry!r}.")
        entries.append((name, path))
    pack(flags.FLAGS.output, entries)
    print(f"{flags.FLAGS.output}: {os.path.getsize(flags.FLAGS.output) / 1e6:.2f} MB")


def run() -> None:
    command.run(main, define_flags, __doc__)


if __name__ == "__main__":
    run()
