"""What a TensorFlow graph decodes is what `read_image` reads."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from sqz_keras.images.files import read_image
from sqz_keras.images.graph import JPEG_EXIF_BYTES, PNG_EXIF_BYTES, decode_jpeg, decode_png, turn_upright
from tests.images.png_files import PALETTE, all_kinds, write_png
from tests.images.test_files import encode

KINDS = {name: (data, seen) for name, data, seen in all_kinds()}
ORIENTATION = 0x0112


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_png(name):
    data, seen = KINDS[name]
    np.testing.assert_allclose(read_image(data), seen, atol=1)
    np.testing.assert_allclose(decode_png(tf.constant(data)), seen, atol=1)


def test_a_palette_whose_colours_are_all_nearly_transparent():
    """Its alphas are 15, the value that TensorFlow gives all pixels where 4 bits have no transparency."""
    palette, samples = np.zeros((16, 3), np.uint8), np.arange(16).reshape(4, 4, 1)
    data = write_png(samples, PALETTE, 4, {b"PLTE": palette.tobytes(), b"tRNS": bytes([15] * 16)})
    np.testing.assert_array_equal(decode_png(tf.constant(data)), np.full((4, 4, 3), 240))
    np.testing.assert_array_equal(read_image(data), np.full((4, 4, 3), 240))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("format", "decode"), [("JPEG", decode_jpeg), ("PNG", decode_png)])
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_orientation(orientation, format, decode, order):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    exif = Image.Exif()
    exif.endian = order
    exif[ORIENTATION], exif[0x010F] = orientation, "Camera"
    data = encode(Image.fromarray(pixels), format=format, exif=exif)
    expected = read_image(data)
    assert expected.shape == ((24, 40, 3) if orientation < 5 else (40, 24, 3))
    np.testing.assert_array_equal(turn_upright(decode(tf.constant(data)), tf.constant(data), PNG_EXIF_BYTES), expected)


def test_damaged_exif_turns_nothing():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    data = encode(Image.new("RGB", (16, 8), "red"), format="JPEG", exif=exif)
    damaged = data.replace(b"MM\0*", b"XX\0*")
    assert damaged != data
    assert read_image(damaged).shape == (8, 16, 3)
    assert turn_upright(decode_jpeg(tf.constant(damaged)), tf.constant(damaged), JPEG_EXIF_BYTES).shape == (8, 16, 3)
