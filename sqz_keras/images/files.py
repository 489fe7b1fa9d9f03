"""Image files: which files of a folder are images, and reading them as a person sees them."""

from __future__ import annotations

import io
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from PIL import Image, ImageOps

MAX_PIXELS = 100_000_000
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")


def find_images(image_dir: str | os.PathLike, at_most: int | None = None) -> list[pathlib.Path]:
    """The images of a folder at any depth, whatever they show, sorted by path.

    Args:
        image_dir: The folder.
        at_most: How many to return, None for all. They are spread evenly over the sorted paths, because folders are
            often sorted by what their images show.

    Raises:
        ValueError: not a folder, or no images in it.
    """
    root = pathlib.Path(image_dir)
    if not root.is_dir():
        raise ValueError(f"{image_dir} is not a folder of images.")
    images = only_images(path for path in root.rglob("*") if path.is_file())
    if not images:
        raise ValueError(f"{root} holds no images ({', '.join(SUFFIXES)}).")
    count = min(len(images), at_most or len(images))
    return [images[position] for position in np.linspace(0, len(images) - 1, count).round().astype(int)]


def only_images(paths: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """The paths with the suffix of an image whose names do not start with a dot, sorted."""
    return sorted(path for path in paths if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))


def read_image(source: str | os.PathLike | bytes) -> np.ndarray:
    """Decodes an image: JPEG, PNG, and whatever else Pillow reads.

    EXIF orientation is applied, CMYK and grey become RGB, 16 bits become 8, transparency is laid on white.

    Args:
        source: A path, or the encoded bytes.

    Returns:
        uint8 array (H, W, 3), RGB.

    Raises:
        ValueError: not an image, a damaged one, or one of more than 100 million pixels.
        OSError: the file cannot be opened.
    """
    name = "the bytes" if isinstance(source, bytes) else os.fspath(source)
    with open(source, "rb") if not isinstance(source, bytes) else io.BytesIO(source) as file:
        try:
            with Image.open(file) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
                image = ImageOps.exif_transpose(image)
                return np.asarray(to_rgb(image))
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
            raise ValueError(f"{name}: not an image that can be read: {error}.") from error


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


def to_rgb(image: Image.Image) -> Image.Image:
    """Any image as 8-bit RGB, as a person sees it: transparency is laid on white."""
    if image.mode.startswith("I"):
        high_bytes = np.asarray(image, np.int64) >> 8
        image = Image.fromarray(high_bytes.clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
