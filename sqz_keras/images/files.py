"""Image files: which files of a folder are images, and reading them as a person sees them."""

from __future__ import annotations

import io
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from sqz_keras.images.pillow import open_image, pixels_of, text_of_error

SUFFIXES = (
    ".avif",
    ".bmp",
    ".gif",
    ".heic",
    ".heif",
    ".jfif",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".mpo",
    ".pgm",
    ".png",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
)
_NAMED = 3  # how many things of a kind are named in a message
_OF_SYSTEMS = ("__MACOSX", "@eaDir")  # folders in the zip files of a Mac, and of a NAS, with thumbnails


def find_images(image_dir: str | os.PathLike, at_most: int | None = None) -> list[pathlib.Path]:
    """The images of a folder at any depth, whatever they show, sorted by path; see `files_below`.

    Args:
        image_dir: The folder.
        at_most: How many to return, None for all. They are spread evenly over the sorted paths, because folders are
            often sorted by what their images show.

    Returns:
        Paths of files with an image's suffix; none of them is opened.

    Raises:
        ValueError: not a folder, or no images in it.
        OSError: a folder in it cannot be listed.
    """
    root = pathlib.Path(image_dir)
    if not root.is_dir():
        raise ValueError(f"{image_dir} is not a folder of images.")
    images, others = split_by_suffix(files_below(root))
    report_left_out(root, others)
    if not images:
        raise ValueError(f"{root} holds no images ({', '.join(SUFFIXES)}).")
    count = min(len(images), at_most or len(images))
    return [images[position] for position in np.linspace(0, len(images) - 1, count).round().astype(int)]


def visible(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files, folders and links directly in a folder that are not hidden, sorted; links to nothing are among them.

    Raises:
        OSError: The folder cannot be listed.
    """
    return sorted(path for path in folder.iterdir() if not _is_hidden(path.name))


def _is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden from people: its name starts with a dot, or is a system's own."""
    return name.startswith(".") or name in _OF_SYSTEMS


def files_below(folder: str | os.PathLike) -> Iterator[pathlib.Path]:
    """The files of a folder at any depth; hidden folders are skipped.

    Links to folders elsewhere are followed. No folder is listed twice, so links may form circles.

    Raises:
        OSError: a folder cannot be listed.
    """
    top = os.path.realpath(folder)
    seen = {top}

    def is_new(path: str) -> bool:
        real = os.path.realpath(path)
        is_own = os.path.islink(path) and f"{real}{os.sep}".startswith(f"{top}{os.sep}")  # comes without the link too
        is_listed = real in seen or is_own
        seen.add(real)
        return not is_listed

    for path, folders, names in os.walk(folder, onerror=_fail, followlinks=True):
        folders[:] = [name for name in sorted(folders) if not _is_hidden(name) and is_new(os.path.join(path, name))]
        yield from (pathlib.Path(path, name) for name in names)


def _fail(error: OSError) -> None:
    raise error


def split_by_suffix(paths: Iterable[pathlib.Path]) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """Files with the suffix of an image, and other files and links to nothing, both sorted; neither has hidden ones."""
    images, others = [], []
    for path in sorted(path for path in paths if not _is_hidden(path.name)):
        if path.is_file():
            (images if path.suffix.lower() in SUFFIXES else others).append(path)
        elif not path.exists():
            others.append(path)
    return images, others


def first_names(names: Sequence[object], most: int = _NAMED) -> str:
    """The first `most` names for a message, separated by commas, and "..." if there are more."""
    return f"{', '.join(map(str, names[:most]))}{', ...' if len(names) > most else ''}"


def report_left_out(root: pathlib.Path, others: Sequence[pathlib.Path], why: str | None = None) -> None:
    """Reports on stderr how many files of a folder are not read, and names the first ones.

    Args:
        root: The folder.
        others: The files; without a `why`, those of `split_by_suffix`.
        why: The reason, in words that follow the number of files.
    """
    if others:
        links = ", or links to nothing"
        why = why or f"without the suffix of an image{links * any(not path.exists() for path in others)}"
        names = first_names([path.relative_to(root) for path in others[: _NAMED + 1]])  # one more for the dots
        print(f"{root}: left out {len(others)} file{'s' * (len(others) != 1)} {why}: {names}", file=sys.stderr)


def report_misplaced(root: pathlib.Path, folders: Iterable[pathlib.Path], others: Iterable[pathlib.Path] = ()) -> None:
    """Reports how many images are not directly in one of the classes' folders, and names the first ones.

    Args:
        root: The folder.
        folders: The classes' folders in it.
        others: Folders in it from which nothing is read.
    """
    inside = [
        # DirEntry.is_dir fails on a link to itself.
        inner.path
        for folder in folders
        for inner in os.scandir(folder)
        if not _is_hidden(inner.name) and os.path.isdir(inner.path)
    ]
    unread = [path for folder in [*inside, *others] for path in files_below(folder)]
    images, _ = split_by_suffix([*root.iterdir(), *unread])
    report_left_out(root, images, "outside of the classes' folders, or in folders inside those")


def read_image(source: str | os.PathLike | bytes) -> np.ndarray:
    """Decodes an image in any format of `SUFFIXES`, whatever its name says; of several frames, only the first.

    EXIF orientation is applied, CMYK and grey become RGB, 16 bits become 8, transparent pixels are laid over white.

    Args:
        source: A path, or the encoded bytes.

    Returns:
        uint8 array (H, W, 3), RGB.

    Raises:
        ValueError: not an image, a damaged one, one of more than 100 million pixels, or one that is more than 100 times
            as long as wide.
        OSError: the file cannot be opened.
    """
    name = "the bytes" if isinstance(source, bytes) else os.fspath(source)
    if not isinstance(source, bytes) and os.path.isdir(source):
        raise ValueError(
            f"{name}: a folder, not an image; give the images in it, such as {os.path.join(name, '*.jpg')}."
        )
    with open(source, "rb") if not isinstance(source, bytes) else io.BytesIO(source) as opened:
        file = opened if opened.seekable() else io.BytesIO(opened.read())  # a pipe, such as /dev/stdin, is not
        try:
            with open_image(file) as image:
                return pixels_of(image, file)
        except Exception as error:  # of a damaged file, Pillow raises nearly any kind
            raise ValueError(f"{name}: not an image that can be read: {text_of_error(error)}.") from error


def read_images(
    paths: Iterable[str | os.PathLike],
    prepare: Callable[[np.ndarray], np.ndarray] = lambda image: image,
    mapper: Callable[..., Iterator] = map,
) -> Iterator[tuple[str | os.PathLike, np.ndarray | None, Exception | None]]:
    """Reads images in order; one that cannot be read does not stop the others.

    Args:
        paths: The files.
        prepare: Function of the image that `read_image` returns.
        mapper: `map`, which reads an image when the caller takes it, or the `map` of an executor, which reads ahead.

    Returns:
        An iterator of (path, what `prepare` returned, None), or (path, None, error) for an image that cannot be read.
            The error's message names the file.
    """

    def read(path):
        try:
            return path, prepare(read_image(path)), None
        except (ValueError, OSError) as error:
            return path, None, error

    return mapper(read, paths)
