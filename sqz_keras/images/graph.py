"""Images decoded inside a TensorFlow graph, as `read_image` decodes them outside, but for EXIF orientation."""

from __future__ import annotations

import tensorflow as tf

JPEG_START, PNG_START = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"


def starts_with(data: tf.Tensor, start: bytes) -> tf.Tensor:
    """Whether an encoded image, a scalar string, is of the kind that begins with `start`; a scalar bool."""
    return tf.equal(tf.strings.substr(data, 0, len(start)), start)


def decode_jpeg(data: tf.Tensor) -> tf.Tensor:
    """RGB, uint8 (H, W, 3), from a colour, grey or CMYK JPEG.

    The DCT is Pillow's; the default one is up to 6 levels off. CMYK may differ from Pillow's RGB by one
    level, as TensorFlow truncates where Pillow rounds.
    """
    return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")


def decode_png(data: tf.Tensor) -> tf.Tensor:
    """RGB, uint8 (H, W, 3), from any PNG; transparency is laid on white, rounded as Pillow does it."""
    rgba = tf.cast(tf.io.decode_png(data, channels=4), tf.int32)
    colour, alpha = rgba[..., :3], rgba[..., 3:]
    return tf.cast((colour * alpha + 255 * (255 - alpha) + 127) // 255, tf.uint8)
