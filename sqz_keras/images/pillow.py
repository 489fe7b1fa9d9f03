"""Image files as a person sees them, read with Pillow: bounds, orientation, and fixes for what it reads wrongly."""

from __future__ import annotations

import io
from typing import BinaryIO

import numpy as np
from PIL import Image

from sqz_keras.files import LFS_POINTER
from sqz_keras.images import png

# An image of more pixels, or more elongated, is refused: resizing the short side up must not make a huge image.
MAX_PIXELS = 100_000_000
MAX_ASPECT_RATIO = 100  # long side over short side
# Pillow's names of the formats that are read. It opens others too, some of them by running another program.
_FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "MPO", "PNG", "PPM", "TIFF", "WEBP")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_BRANDS_BYTES = 255  # of HEIC and AVIF: a box with its size, then the main brand, then the compatible ones
_ORIENTATION = 0x0112  # EXIF's tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# TIFF's tags, each with the value that holds if it is left out.
_TIFF_BITS, _TIFF_COLOURS, _TIFF_PALETTE, _TIFF_NUMBERS = (258, (1,)), (262, 1), (320, (0xFFFF,)), (339, (1,))
_TIFF_COMPRESSION, _TIFF_PLANES = (259, 1), (284, 1)
_WHITE_IS_0, _LAB, _SIGNED, _UNCOMPRESSED, _SEPARATE = 0, 8, 2, 1, 2
_ANIMATED = 2  # a flag of WebP
_TOO_MANY_BITS = "its pixels have more than 16 bits; save it with 8 or 16 bits"
_ENDS_EARLY = "the file ends early: some of its pixels are missing"
JPEG_END = b"\xff\xd9"
_JPEG_PIXELS = b"\xff\xda"
MISSING_GREY = 128  # the JPEG library paints missing pixels in it, and its warning reaches nobody
# Arbitrary compressed pixels, eight times, each time followed by another restart marker.
MORE_PIXELS = b"".join(bytes([*range(1, 100, 3), 0xFF, 0xD0 + count]) for count in range(8))


def open_image(file: BinaryIO) -> Image.Image:
    """`PIL.Image.open` for the formats of `files.SUFFIXES`; HEIC if the package pillow-heif is installed."""
    Image.init()
    start = file.read(_BRANDS_BYTES)
    file.seek(0)
    if start.startswith(png.START):
        file = io.BytesIO(png.essential(file.read()))
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS and b"avif" not in start[: start[3]]:
        try:
            import pillow_heif
        except ModuleNotFoundError as error:
            raise ValueError("a HEIC image; pip install pillow-heif, or convert it to JPEG") from error
        pillow_heif.register_heif_opener()
    try:
        return Image.open(file, formats=[name for name in _FORMATS if name in Image.OPEN])
    except Image.DecompressionBombError as error:  # Pillow's own bound, which is higher
        raise ValueError(f"more than {MAX_PIXELS:,} pixels; make it smaller") from error
    except Image.UnidentifiedImageError as error:
        raise ValueError(_reason(file, start) or f"none of the formats {', '.join(_FORMATS)}, or damaged") from error


def _reason(file: BinaryIO, start: bytes) -> str | None:
    """Why a file is not an image, or why Pillow does not open a JPEG or TIFF, which `Image.open` does not say."""
    if not start:
        return "an empty file"
    if start.startswith(LFS_POINTER):
        return "a pointer of Git LFS, not the image itself; fetch it: git lfs pull"
    for format in ("JPEG", "TIFF"):
        factory, accept = Image.OPEN[format]
        if accept(start):
            file.seek(0)
            try:
                factory(file)
            except Exception as error:  # of a damaged file, Pillow raises nearly any kind
                return f"a {format} that is damaged, or of a kind that is not read ({error}); save it anew, with 8 bits"
    return None


def text_of_error(error: Exception) -> str:
    """Why an image cannot be read, on one line: what one of the functions here raised."""
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    text = " ".join(str(error).split()).rstrip(".")
    # Pillow's own errors often say no more than "decoder error -2".
    return text if isinstance(error, ValueError) else f"{text}; it is damaged, or of a kind that is not read"


def pixels_of(image: Image.Image, file: BinaryIO | None) -> np.ndarray:
    """What `read_image` returns, for an image that Pillow has opened.

    Args:
        image: The image.
        file: What it was opened from; None if the image has been loaded already, or never was a file.

    Raises:
        ValueError: As `read_image`, without the file's name.
        Exception: The image is damaged; Pillow raises nearly any kind.
    """
    check_size(image)
    if image.mode == "I" and image.format is None:
        raise ValueError("its pixels are 32-bit integers of an unknown range; give 8 or 16 bits")
    if file is not None:
        _check_end(image, file)
        _keep_gaps(image, file)
        exact = _with_exact_transparency(image, file)  # which needs an image that is not loaded yet
        if image.format == "PNG" and _lacks_rows(image, file):
            raise ValueError(_ENDS_EARLY)
        image = exact
    return np.asarray(to_rgb(_turned_upright(_without_gaps(_with_exact_tiff(image)))))


def check_size(image: Image.Image) -> None:
    """Refuses an image whose pixels, or whose resized copy, would need too much memory.

    Raises:
        ValueError: more than `MAX_PIXELS` pixels, or more elongated than `MAX_ASPECT_RATIO`.
    """
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels, more than {MAX_PIXELS:,}; make it smaller")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise ValueError(f"{width} x {height} pixels, more than {MAX_ASPECT_RATIO} times as long as wide")


def is_upright(image: Image.Image) -> bool:
    """Whether the image is stored upright."""
    return _turn(image) is None


def _turned_upright(image: Image.Image) -> Image.Image:
    """An image turned upright. `ImageOps.exif_transpose` would rewrite the EXIF, and fails on tags of odd types."""
    turn = _turn(image)
    return image if turn is None else image.transpose(turn)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """The transposition that turns an image upright, by its EXIF; None if it is upright, or the EXIF is damaged.

    Pillow's own method would also read XMP and ImageMagick's text; viewers and the served graph do not. Pillow turns a
    TIFF itself.
    """
    if image.format == "PNG":
        image.load()  # its EXIF may come after the pixels
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif"))
        return _TURNS.get(exif.get(_ORIENTATION))
    except Exception:  # of damaged EXIF, Pillow raises nearly any kind
        return None


def _check_end(image: Image.Image, file: BinaryIO) -> None:
    """Refuses a JPEG that ends before all of its pixels, and a lossless one; Pillow accepts both.

    Lossless JPEGs have no quantisation tables; TensorFlow and browsers do not read them.
    """
    if image.format not in ("JPEG", "MPO"):
        return
    if not image.quantization:
        raise ValueError("a lossless JPEG; save it as a PNG, or as an ordinary JPEG")
    data = content(file)
    if _lacks_end(data):
        raise ValueError(_ENDS_EARLY)
    if image.format == "MPO" or not data.endswith(JPEG_END):  # an MPO ends where its last image does
        return
    last = np.ravel(image.getpixel((image.width - 1, image.height - 1)))
    inks = {255 - MISSING_GREY} if image.mode == "CMYK" else set()  # Pillow inverts all four, or only the last
    if set(last) <= {MISSING_GREY} | inks:
        longer = data.removesuffix(JPEG_END) + MORE_PIXELS + JPEG_END
        with open_image(io.BytesIO(longer)) as other:
            if not np.array_equal(image, other):
                raise ValueError(_ENDS_EARLY)


def _lacks_end(data: bytes) -> bool:
    """Whether a JPEG has no end marker after its first pixels, as when zeros replace the rest."""
    at = 2
    while data[at : at + 2] != _JPEG_PIXELS and at < len(data) - 4:
        # A marker may follow any number of bytes 0xFF. A thumbnail in the EXIF has pixels and an end of its own.
        is_segment = data[at] == 0xFF and data[at + 1] not in (0, 0xFF)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big") if is_segment else 1
    return data.find(JPEG_END, at) < 0


def _lacks_rows(image: Image.Image, file: BinaryIO) -> bool:
    """Whether a PNG holds fewer pixels than it declares, so that some may appear black."""
    if not image.info.get("interlace") and np.any(image.crop((0, image.height - 1, *image.size))):
        return False
    return png.lacks_rows(content(file), *image.size)


def content(file: BinaryIO) -> bytes:
    """All bytes of an open file, whose position is left as it was."""
    position = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(position)
    return data


def _with_exact_tiff(image: Image.Image) -> Image.Image:
    """A grey TIFF with samples of 16 bits, 0 for black; Pillow does not scale 12 bits, and leaves white at 0.

    It is upright, because Pillow turns a TIFF when it loads the samples. Palettes whose colours have 8 bits instead of
    16 are read as 8 bits. Every other image is returned as it is.

    Raises:
        ValueError: Its samples have more than 16 bits, are signed, or lie in planes that Pillow mixes up.
    """
    if image.format != "TIFF":
        return image
    bits, colours, palette, numbers, compression, planes = (
        image.tag_v2.get(*tag)
        for tag in (_TIFF_BITS, _TIFF_COLOURS, _TIFF_PALETTE, _TIFF_NUMBERS, _TIFF_COMPRESSION, _TIFF_PLANES)
    )
    are_apart = planes == _SEPARATE and compression == _UNCOMPRESSED and len(bits) > 1
    if are_apart and (max(bits) > 8 or colours == _LAB):
        raise ValueError("its colours lie in separate planes; save it with 8 bits, or compressed")
    if _SIGNED in numbers:
        raise ValueError("its pixels are signed numbers of an unknown range; save it with 8 or 16 bits, unsigned")
    if image.mode == "P" and max(palette) < 256:
        image.putpalette(np.reshape(palette, (3, -1)).T.astype(np.uint8).tobytes())
    if not image.mode.startswith("I"):
        return image
    if bits[0] > 16:
        raise ValueError(_TOO_MANY_BITS)
    if bits[0] < 16 or colours == _WHITE_IS_0:
        samples = np.asarray(image, np.uint16) << (16 - bits[0])
        return Image.fromarray(0xFFFF - samples if colours == _WHITE_IS_0 else samples)
    return image


def _keep_gaps(image: Image.Image, file: BinaryIO) -> None:
    """Has Pillow keep the alpha of an animated WebP: it is 0 in gaps of the first frame, even if no frame has any."""
    header = content(file)[12:21] if image.format == "WEBP" else b""
    if header.startswith(b"VP8X") and header[-1] & _ANIMATED:
        image._mode = image.rawmode = "RGBA"


def _without_gaps(image: Image.Image) -> Image.Image:
    """Makes a BMP opaque if all of it is transparent, and fills what the first frame of a GIF leaves out with white.

    Many programs set the fourth byte of a BMP's pixels to 0. Pillow fills a GIF's gaps with some colour of its palette.
    """
    if image.format == "BMP" and image.mode == "RGBA" and image.getextrema()[3] == (0, 0):
        return image.convert("RGB")
    if image.format == "GIF" and image.tell() == 0 and image.tile and "transparency" not in image.info:
        box = image.tile[0].extents
        if box != (0, 0, *image.size):
            white = Image.new("RGB", image.size, "white")
            white.paste(image.convert("RGB").crop(box), box)
            return white
    return image


def _with_exact_transparency(image: Image.Image, file: BinaryIO) -> Image.Image:
    """A PNG with its transparent colour applied by comparison with the samples in the file.

    Pillow compares it with samples that it has scaled to 8 bits, which is wrong for 2, 4 and 16 bits.
    """
    key = image.info.get("transparency")
    if image.format != "PNG" or key is None:
        return image
    tile = image.tile[0]
    if tile.args in ("L;2", "L;4"):
        image.info["transparency"] = key * 255 // (2 ** int(tile.args[-1]) - 1)
        return image
    if tile.args not in ("I;16B", "RGB;16B"):
        return image
    data = content(file)
    samples = np.asarray(image, np.uint16)
    if image.mode == "RGB":
        with open_image(io.BytesIO(data)) as low:
            low.tile = [low.tile[0]._replace(args="RGB;16L")]  # in the other byte order, Pillow keeps the low bytes
            samples = samples << 8 | np.asarray(low)
    is_opaque = (samples != key).reshape(*samples.shape[:2], -1).any(-1)
    rgb = to_rgb(image) if image.mode == "RGB" else Image.fromarray((samples >> 8).astype(np.uint8)).convert("RGB")
    rgb.info = {name: value for name, value in image.info.items() if name != "transparency"}  # keeps the EXIF
    rgb.putalpha(Image.fromarray(np.where(is_opaque, 255, 0).astype(np.uint8)))
    return rgb


def to_rgb(image: Image.Image) -> Image.Image:
    """Any image as 8-bit RGB, as a person sees it: transparent pixels are laid over white.

    Raises:
        ValueError: pixels of more than 16 bits, or floats, whose range is unknown.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floats of an unknown range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        samples = np.asarray(image, np.int64)
        if samples.min() < 0 or samples.max() > 0xFFFF:
            raise ValueError(_TOO_MANY_BITS)
        image = Image.fromarray((samples >> 8).astype(np.uint8))
    if image.mode in ("RGBa", "La"):  # colours premultiplied by their alpha
        image = image.convert(image.mode.upper())
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
