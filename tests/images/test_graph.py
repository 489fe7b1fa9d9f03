"""A TensorFlow graph decodes image files to the same pixels as `read_image`."""

import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from sqz_keras.images.files import read_image
from sqz_keras.images.graph import (
    decode_jpeg,
    decode_png,
    jpeg_upright,
    png_upright,
)
from tests.images.png_files import COLOUR, PALETTE, all_kinds, chunk, write_png
from tests.images.test_files import encode, noise_jpeg, with_early_end

KINDS = {name: (data, seen) for name, data, seen in all_kinds()}
ORIENTATION = 0x0112


def upright_jpeg(data):
    return jpeg_upright(decode_jpeg(data), data)


def upright_png(data):
    return png_upright(decode_png(data), data)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_png(name):
    data, seen = KINDS[name]
    np.testing.assert_allclose(read_image(data), seen, atol=1)
    np.testing.assert_allclose(decode_png(tf.constant(data)), seen, atol=1)


def test_a_palette_whose_colours_are_all_nearly_transparent():
    """Its alphas are 15, the value that TensorFlow gives to all pixels of a 4-bit image without transparency."""
    palette, samples = np.zeros((16, 3), np.uint8), np.arange(16).reshape(4, 4, 1)
    data = write_png(samples, PALETTE, 4, {b"PLTE": palette.tobytes(), b"tRNS": bytes([15] * 16)})
    np.testing.assert_array_equal(decode_png(tf.constant(data)), np.full((4, 4, 3), 240))
    np.testing.assert_array_equal(read_image(data), np.full((4, 4, 3), 240))


COLOURS = (b"PLTE", bytes(range(0, 240, 5)))
CLEAR = (b"tRNS", bytes(3) + b"\xff" * 13)
LARGE_PROFILE = (b"iCCP", b"monitor\0\0" + zlib.compress(bytes(2_000_000)))


def odd_png(*before: tuple[bytes, bytes], behind: tuple = (), wrong: bytes = b"") -> bytes:
    """A PNG of 4 x 4 pixels with chunks around its pixels; a chunk named `wrong` has a wrong checksum."""
    kind, depth = (PALETTE, 4) if COLOURS in (*before, *behind) else (COLOUR, 8)
    samples = np.arange(16).reshape(4, 4, 1) if kind == PALETTE else np.arange(48).reshape(4, 4, 3)
    data = write_png(samples, kind, depth, {})
    start, end = data.index(b"IDAT") - 4, len(data) - 12
    extra = [b"".join(chunk(*part) for part in parts) for parts in (before, behind)]
    data = data[:start] + extra[0] + data[start:end] + extra[1] + data[end:]
    at = data.index(wrong) if wrong else 0
    at += 4 + int.from_bytes(data[at - 4 : at], "big")
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] if wrong else data


@pytest.mark.parametrize(
    "data",
    [
        odd_png(COLOURS, CLEAR),
        odd_png(CLEAR, COLOURS),
        odd_png(COLOURS, (b"tRNS", bytes(3) + b"\xff" * 250)),
        odd_png(COLOURS, CLEAR, wrong=b"tRNS"),
        odd_png((b"tRNS", bytes([0, 3, 0, 4, 0, 5]))),
        odd_png(behind=((b"tRNS", bytes([0, 3, 0, 4, 0, 5])),)),
        odd_png((b"gAMA", bytes(4)), wrong=b"gAMA"),
        odd_png(LARGE_PROFILE),
        odd_png((b"zTXt", b"a\0\0" + zlib.compress(bytes(2_000_000)))),
    ],
)
def test_a_png_shows_what_libpng_makes_of_it(data):
    np.testing.assert_array_equal(read_image(data), decode_png(tf.constant(data)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (odd_png(COLOURS, COLOURS), "PLTE is in a wrong place"),
        (odd_png(behind=(COLOURS,)), "IDAT is in a wrong place"),
        (odd_png((b"IHDR", bytes([0, 0, 0, 4, 0, 0, 0, 4, 8, 2, 0, 0, 0]))), "IHDR is in a wrong place"),
        (odd_png().replace(b"\0\0\0\0IEND", b"\0\0\0\1IEND"), "the file ends early"),
        (odd_png(wrong=b"IDAT"), "IDAT has a wrong checksum"),
        (odd_png((b"CgBI", bytes(4))), "'CgBI', which no PNG has; save it as an ordinary PNG"),
    ],
)
def test_a_png_that_libpng_refuses_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        read_image(data)
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_png(tf.constant(data))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("format", "decode"), [("JPEG", upright_jpeg), ("PNG", upright_png)])
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_orientation(orientation, format, decode, order):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    exif = Image.Exif()
    exif.endian = order
    exif[ORIENTATION], exif[0x010F] = orientation, "Camera"
    data = encode(Image.fromarray(pixels), format=format, exif=exif)
    expected = read_image(data)
    assert expected.shape == ((24, 40, 3) if orientation < 5 else (40, 24, 3))
    np.testing.assert_array_equal(decode(tf.constant(data)), expected)


def test_damaged_exif_turns_nothing():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    data = encode(Image.new("RGB", (16, 8), "red"), format="JPEG", exif=exif)
    damaged = data.replace(b"MM\0*", b"XX\0*")
    assert damaged != data
    assert read_image(damaged).shape == (8, 16, 3)
    assert upright_jpeg(tf.constant(damaged)).shape == (8, 16, 3)


def exif_of(order: str, *directories: dict[int, int], kind: int = 3, before: bytes = b"") -> bytes:
    """EXIF with image directories of {tag: value}, and bytes before the first directory."""
    number = "H" if kind == 3 else "I"
    content = struct.pack(f"{order}HI", 42, 8 + len(before)) + before
    for place, entries in enumerate(directories):
        content += struct.pack(f"{order}H", len(entries))
        for tag, value in entries.items():
            content += struct.pack(f"{order}HHI", tag, kind, 1) + struct.pack(order + number, value).ljust(4, b"\0")
        is_last = place == len(directories) - 1
        content += struct.pack(f"{order}I", 0 if is_last else 2 + len(content) + 4)
    return (b"II" if order == "<" else b"MM") + content


def in_jpeg(exif: bytes, *segments: tuple[int, bytes], fill: bytes = b"", before: bytes | None = None) -> bytes:
    """A JPEG, 8 high and 16 wide, with segments and fill bytes before its EXIF; `before` is the marker that follows."""
    segments = [*segments, (0xE1, b"Exif\0\0" + exif)]
    added = b"".join(fill + b"\xff" + struct.pack(">BH", marker, len(data) + 2) + data for marker, data in segments)
    data = encode(Image.new("RGB", (16, 8), "red"), format="JPEG")
    at = 20 if before is None else data.index(before)
    return data[:at] + added + data[at:]


def in_png(*chunks: tuple[bytes, bytes], behind: bool = False) -> bytes:
    """A PNG, 8 high and 16 wide, with more chunks before or behind its pixels."""
    added = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    data = encode(Image.new("RGB", (16, 8), "red"), format="PNG")
    at = len(data) - 12 if behind else 33
    return data[:at] + added + data[at:]


TURN, NONE, STRAIGHT = {0x100: 5, ORIENTATION: 6}, {0x100: 5}, {ORIENTATION: 1}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("turns", "place"),
    [
        (True, lambda order: in_jpeg(exif_of(order, TURN))),
        (True, lambda order: in_jpeg(exif_of(order, TURN, kind=4))),
        (True, lambda order: in_jpeg(exif_of(order, TURN, before=bytes(30)))),
        (True, lambda order: in_jpeg(exif_of(order, TURN, STRAIGHT))),
        (True, lambda order: in_jpeg(exif_of(order, TURN), (0xE2, bytes(9000)), (0xFE, bytes(60_000)))),
        (True, lambda order: in_jpeg(exif_of(order, TURN), fill=b"\xff" * 5)),
        (True, lambda order: in_jpeg(exif_of(order, TURN), before=b"\xff\xda")),
        (False, lambda order: in_jpeg(exif_of(order, NONE), (0xE2, b"Exif\0\0" + exif_of(order, TURN)))),
        (False, lambda order: in_jpeg(exif_of(order, STRAIGHT, TURN))),
        (False, lambda order: in_jpeg(exif_of(order, NONE, TURN))),
        (False, lambda order: in_jpeg(exif_of(order, NONE, before=exif_of(order, TURN)[10:]))),
        (False, lambda order: in_jpeg(exif_of(order, NONE), (0xE1, b"Exif\0\0" + exif_of(order, NONE)))),
        (True, lambda order: in_png((b"eXIf", exif_of(order, TURN)))),
        (True, lambda order: in_png((b"eXIf", b"Exif\0\0" + exif_of(order, TURN)))),
        (True, lambda order: in_png((b"tEXt", b"Comment\0" + b"a" * 20_000), (b"eXIf", exif_of(order, TURN)))),
        (True, lambda order: in_png((b"eXIf", exif_of(order, TURN)), behind=True)),
        (False, lambda order: in_png((b"eXIf", exif_of(order, NONE, TURN)), behind=True)),
        (True, lambda order: in_png((b"eXIf", exif_of(order, TURN | {0x100: 0x5555}))).replace(b"UU", b"UV")),
    ],
)  # fmt: skip
def test_exif_in_every_place(turns, place, order):
    data = place(order)
    expected = (16, 8, 3) if turns else (8, 16, 3)
    assert read_image(data).shape == expected
    decode = upright_jpeg if data.startswith(b"\xff") else upright_png
    assert decode(tf.constant(data)).shape == expected


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "YCCK"])
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"restart_marker_blocks": 1}], ids=str)
def test_a_jpeg_that_ends_early_is_an_error(mode, options, capfd):
    data = noise_jpeg(mode, **options)
    capfd.readouterr()
    assert decode_jpeg(tf.constant(data)).shape == (40, 60, 3)
    assert "Corrupt JPEG data" not in capfd.readouterr().err
    for part in (0.3, 0.9):
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode_jpeg(tf.constant(with_early_end(data, part)))


def test_a_grey_jpeg_ends_where_it_should():
    grey = encode(Image.new("RGB", (16, 8), (128, 128, 128)), format="JPEG")
    assert (decode_jpeg(tf.constant(grey)).numpy() == 128).all()


def test_four_inks_without_a_word_about_them():
    """Pillow and browsers treat the inks as inverted; TensorFlow does so only if the file names Adobe."""
    inks = np.random.default_rng(0).integers(0, 256, (2, 2, 4), np.uint8).repeat(16, 0).repeat(16, 1)
    data = encode(Image.fromarray(inks, "CMYK"), format="JPEG", quality=95)
    start = data.index(b"\xff\xee")
    nameless = data[:start] + data[start + 16 :]
    assert b"Adobe" in data and b"Adobe" not in nameless
    for kind in (data, nameless):
        np.testing.assert_array_equal(read_image(kind), read_image(data))
        np.testing.assert_allclose(decode_jpeg(tf.constant(kind)), read_image(data), atol=1)
