"""The kinds of image that the client takes, and how they are sent. It does not need TensorFlow."""

from __future__ import annotations

import io
import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

import numpy as np
import PIL.Image

from export import contract
from sqz_keras.images.files import read_image
from sqz_keras.images.pillow import content, is_upright, open_image, pixels_of, text_of_error

Image = str | os.PathLike | bytes | bytearray | memoryview | BinaryIO | PIL.Image.Image | np.ndarray
Images = Image | Sequence[Image]

_SENT_FORMATS = ("JPEG", "MPO", "PNG")  # MPO is a JPEG followed by more images
# Larger images are encoded as JPEG, since a PNG of them could fill a whole request.
_MAX_PNG_PIXELS, _JPEG_QUALITY = 4_000_000, 95
_MAX_JPEG_SIDE = 65_500
# Limit for a file that is read. The largest image, as a 16-bit TIFF with transparency, has 0.8 GB.
_MAX_FILE_BYTES = 1 << 30
_OVERHEAD_BYTES = 1 << 16  # at most what a request needs in addition to its images


def as_list(images: Images) -> list[bytes | np.ndarray]:
    """Images as they are sent: JPEG or PNG files, upright, or float32 arrays (H, W, 3), RGB in 0..255.

    Raises:
        ValueError: The list is empty, or holds something that is not an image, or an unreadable image that is neither
            JPEG nor PNG.
        OSError: A file cannot be opened.
    """
    if _is_one(images) or not isinstance(images, Iterable):
        images = [images]
    prepared = [_as_sent(image) for image in images]
    if not prepared:
        raise ValueError("Give at least one image.")
    return prepared


def _is_one(images: Images) -> bool:
    is_batch = isinstance(images, np.ndarray) and images.ndim == 4
    return (isinstance(images, Image) or hasattr(images, "read")) and not is_batch


def _as_sent(image: Image) -> bytes | np.ndarray:
    if isinstance(image, np.ndarray):
        return _checked(image)
    if isinstance(image, PIL.Image.Image):
        try:
            pixels = pixels_of(image, _file_of(image))
        except MemoryError:
            raise
        except Exception as error:  # for a damaged file, Pillow may raise nearly any exception
            raise ValueError(f"A PIL image cannot be read: {text_of_error(error)}.") from error
        return _encoded(pixels)
    if isinstance(image, str | os.PathLike):
        return _upright(read_file(image))
    if hasattr(image, "read"):
        image = image.read()
        if isinstance(image, str):
            raise ValueError("An image's file must be opened in binary mode: open(path, 'rb').")
        if not image:
            raise ValueError("An image's open file has nothing left to read; file.seek(0) goes back to its start.")
    if isinstance(image, bytes | bytearray | memoryview):
        return _upright(bytes(image))
    raise ValueError(
        "An image is a path, an open file, the bytes of an image file, a PIL image, or a numpy array (H, W, 3), RGB in "
        f"0..255; got {type(image).__name__}. numpy.asarray(...) makes an array of nested lists."
    )


def read_file(path: str | os.PathLike) -> bytes:
    """The bytes of an image's file.

    Raises:
        ValueError: The file is larger than any image, as a video may be.
        OSError: The file cannot be read.
    """
    size = os.path.getsize(path)
    if size > _MAX_FILE_BYTES:
        raise ValueError(f"{os.fspath(path)} has {size:,} bytes, and an image's file at most {_MAX_FILE_BYTES:,}.")
    return pathlib.Path(path).read_bytes()


def _file_of(image: PIL.Image.Image) -> BinaryIO | None:
    """A copy of the file that a PIL image was opened from, or None once its pixels have been loaded."""
    file = getattr(image, "fp", None)
    if file is None or not getattr(image, "tile", None):
        return None
    return io.BytesIO(content(file))


def _checked(image: np.ndarray) -> np.ndarray:
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0 or image.dtype.kind not in "uif":
        raise ValueError(
            f"An array must hold numbers (H, W, 3), or (N, H, W, 3) for N images; got {image.dtype} {image.shape}."
        )
    low, high = image.min(), image.max()
    if not (low >= 0 and high <= 255):
        raise ValueError(f"An array must hold RGB in 0..255, not preprocessed; got values in {low}..{high}.")
    if image.dtype.kind == "f" and 0 < high <= 1:
        raise ValueError(
            f"An array must hold RGB in 0..255; got values in {low}..{high}, as if scaled: multiply by 255."
        )
    return image.astype(np.float32, copy=False)


def _upright(data: bytes) -> bytes:
    """Returns an upright JPEG or PNG unchanged. Encodes a rotated one (EXIF) or an image of another format again.

    The served graph decodes JPEG and PNG, and does not read EXIF. An unreadable JPEG or PNG, or a file of unknown
    format, is sent unchanged: the server then gives its status.

    Raises:
        ValueError: An image of another known format cannot be read, or reading it needs a package that is missing.
    """
    format = None
    try:
        with open_image(io.BytesIO(data)) as image:
            format = image.format
            if format in _SENT_FORMATS and is_upright(image):
                return data
        file = io.BytesIO(data)
        with open_image(file) as image:  # opened again, as its pixels may have been loaded
            pixels = pixels_of(image, file)
    except MemoryError:
        raise
    except Exception as error:  # for a damaged file, Pillow may raise nearly any exception
        lacks_package = isinstance(error.__cause__, ModuleNotFoundError)
        if lacks_package or format not in (None, *_SENT_FORMATS):
            raise ValueError(f"An image cannot be read: {text_of_error(error)}.") from error
        return data
    return _encoded(pixels)


def _encoded(image: np.ndarray) -> bytes:
    """A PNG; or, for a large image that is not too long for it, a JPEG of a tenth of the size."""
    file = io.BytesIO()
    if image.shape[0] * image.shape[1] <= _MAX_PNG_PIXELS or max(image.shape) > _MAX_JPEG_SIDE:
        PIL.Image.fromarray(image).save(file, "PNG", compress_level=1)
    else:
        PIL.Image.fromarray(image).save(file, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return file.getvalue()


def as_arrays(images: Images) -> list[np.ndarray]:
    """Images as arrays, float32 (H, W, 3). Raises what `as_list` raises, and a ValueError for a damaged file."""
    return [
        image if isinstance(image, np.ndarray) else read_image(image).astype(np.float32) for image in as_list(images)
    ]


def as_files(images: Images) -> list[bytes]:
    """Images as JPEG or PNG files; values between the 256 levels are rounded. Raises what `as_list` raises."""
    return [
        image if isinstance(image, bytes) else _encoded(np.rint(image).astype(np.uint8)) for image in as_list(images)
    ]


def chunks(images: Iterable[Image], size: int) -> Iterator[list[Image]]:
    """Splits images into lists of `size`; the last list may be shorter. No image is taken in advance.

    Raises:
        ValueError: `images` is one path, file or PIL image, whose characters or lines would be taken for images.
    """
    if _is_one(images) and not isinstance(images, np.ndarray):
        raise ValueError("A stream takes images, such as a list of them; give one image to predict.")
    images = iter(images)
    while chunk := list(itertools.islice(images, size)):
        yield chunk


def batches(images: Sequence[bytes] | Sequence[np.ndarray]) -> Iterator[list]:
    """Splits images into requests within the contract's limits. Each holds files, or arrays of one size.

    Raises:
        ValueError: An image is too large for any request.
    """
    for image in images:
        check_fits(image)
    limit = _largest_batch()
    batch, used, kind = [], 0, None
    for image in images:
        size = _size(image)
        shape = None if isinstance(image, bytes) else image.shape
        if batch and (len(batch) == contract.MAX_BATCH_SIZE or used + size > limit or shape != kind):
            yield batch
            batch, used = [], 0
        batch.append(image)
        used, kind = used + size, shape
    yield batch


def check_fits(image: bytes | np.ndarray) -> None:
    """Refuses an image, as `as_list` returns it, that is too large for any request.

    Raises:
        ValueError: The image is too large.
    """
    if _size(image) > _largest_batch():
        raise ValueError(
            f"An image has {_size(image)} bytes, and a request at most {_largest_batch()}: send it smaller or encoded."
        )


def _size(image: bytes | np.ndarray) -> int:
    return len(image) if isinstance(image, bytes) else image.nbytes


def _largest_batch() -> int:
    """The largest total size, in bytes, of the images in a request."""
    return contract.MAX_MESSAGE_BYTES - _OVERHEAD_BYTES
