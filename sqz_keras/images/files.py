"""Images: which files of a folder are some, and what a person sees in them."""

from __future__ import annotations

import io
import os
import pathlib
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageOps

MAX_PIXELS = 100_000_000
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")


def find_images(image_dir: str | os.PathLike, at_most: int | None = None) -> list[pathlib.Path]:
    """The images of a folder at any depth, whatever they show, sorted by path.

    Args:
        image_dir: the folder.
        at_most: so many, evenly from the whole folder, whose images are often sorted by what they show.

    Raises:
        ValueError: not a folder, or no images in it.
    """
    root = pathlib.Path(image_dir)
    if not root.is_dir():
        raise ValueError(f"{image_dir} is not a folder of images.")
    found = only_images(path for path in root.rglob("*") if path.is_file())
    if not found:
        raise ValueError(f"{root} holds no images ({', '.join(SUFFIXES)}).")
    count = min(len(found), at_most or len(found))
    return [found[place] for place in np.linspace(0, len(found) - 1, count).round().astype(int)]


def only_images(paths: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """Those that are images by their suffix, and not hidden; sorted."""
    return sorted(path for path in paths if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))


def read_image(source: str | os.PathLike | bytes) -> np.ndarray:
    """Decodes an image: JPEG, PNG, and whatever else Pillow reads.

    EXIF orientation is applied, CMYK and grey become RGB, 16 bits become 8, transparency is laid on white.

    Args:
        source: a path, or the encoded bytes.

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
