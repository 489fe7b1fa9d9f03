"""Images decoded inside a TensorFlow graph, as `sqz_keras.images.files` decodes them outside: JPEG and PNG."""

from __future__ import annotations

import tensorflow as tf

from sqz_keras.images.files import MAX_ASPECT_RATIO, MAX_PIXELS

# Where EXIF is looked for, in bytes from the start: behind the first header of a JPEG, or the colour profile of a PNG.
JPEG_EXIF_BYTES, PNG_EXIF_BYTES = 4096, 8192
JPEG_START, PNG_START = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"

# Of a PNG: where its header (the chunk IHDR) has its width and height, its bits per sample, and its kind of colours.
_PNG_SIZE, _PNG_DEPTH, _PNG_COLOUR = 16, 24, 25
_PALETTE = 3

# The entry "orientation" (tag 0x0112, one value of type 3) of the first image directory of EXIF, in either byte order,
# where it is not 1. (?s)\C is any byte.
_HAS_EXIF = r"(?s)\C*(?:Exif\x00\x00|eXIf)(?:II\*\x00|MM\x00\*)\C*"
_HAS_TURN = (
    r"(?s)\C*?(?:Exif\x00\x00|eXIf)(?:II\*\x00\C*?\x12\x01\x03\x00\x01\x00\x00\x00([\x02-\x08])\x00"
    r"|MM\x00\*\C*?\x01\x12\x00\x03\x00\x00\x00\x01\x00([\x02-\x08]))\C*"
)


def starts_with(data: tf.Tensor, start: bytes) -> tf.Tensor:
    """Whether an encoded image, a scalar string, is of the kind that begins with `start`; a scalar bool."""
    return tf.equal(tf.strings.substr(data, 0, len(start)), start)


def jpeg_size(data: tf.Tensor) -> tf.Tensor:
    """(height, width) that a JPEG declares, int32."""
    return tf.io.extract_jpeg_shape(data)[:2]


def png_size(data: tf.Tensor) -> tf.Tensor:
    """(height, width) that a PNG declares, int32; negative where they do not fit into it."""
    width_and_height = tf.io.decode_raw(tf.strings.substr(data, _PNG_SIZE, 8), tf.int32, little_endian=False)
    return tf.reverse(tf.ensure_shape(width_and_height, [2]), [0])


def fits(size: tf.Tensor) -> tf.Tensor:
    """Whether an image's (height, width) is within the bounds of `sqz_keras.images.files`; false for sizes below 1."""
    height, width = tf.unstack(tf.cast(size, tf.int64))
    shortest, longest = tf.minimum(height, width), tf.maximum(height, width)
    small = (height * width <= MAX_PIXELS) & (longest <= shortest * MAX_ASPECT_RATIO)
    return small & (shortest >= 1)


def decode_jpeg(data: tf.Tensor) -> tf.Tensor:
    """RGB, uint8 (H, W, 3), from a colour, grey or CMYK JPEG.

    The DCT is Pillow's; the default one is up to 6 levels off. CMYK may differ from Pillow's RGB by one
    level, as TensorFlow truncates where Pillow rounds.
    """
    return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")


def decode_png(data: tf.Tensor) -> tf.Tensor:
    """RGB, uint8 (H, W, 3), from any PNG; transparency is laid on white, rounded as Pillow does it."""
    depth = tf.cast(_byte(data, _PNG_DEPTH), tf.int32)
    is_small_palette = (_byte(data, _PNG_COLOUR) == _PALETTE) & (depth < 8)

    def of_small_palette():
        # Three channels where the file has no transparency. With channels=4, it would be given an alpha of 1 to 15.
        image = tf.cast(tf.io.decode_png(data, channels=0), tf.int32)
        alpha = tf.cond(tf.shape(image)[2] == 4, lambda: image[..., 3:], lambda: tf.fill(tf.shape(image[..., :1]), 255))
        return tf.concat([image[..., :3], alpha], -1)

    def of_other():
        rgba = tf.cast(tf.io.decode_png(data, channels=4), tf.int32)
        # The alpha that TensorFlow gives a grey file of `depth` bits without transparency; with it, alpha is 0 or 255.
        filled = tf.bitwise.left_shift(1, tf.minimum(depth, 8)) - 1
        alpha = tf.where(rgba[..., 3:] == filled, 255, rgba[..., 3:])
        return tf.concat([rgba[..., :3], alpha], -1)

    rgba = tf.ensure_shape(tf.cond(is_small_palette, of_small_palette, of_other), [None, None, 4])
    colour, alpha = rgba[..., :3], rgba[..., 3:]
    return tf.cast((colour * alpha + 255 * (255 - alpha) + 127) // 255, tf.uint8)


def _byte(data: tf.Tensor, position: int) -> tf.Tensor:
    """One byte of a file, a scalar uint8; InvalidArgumentError where the file is shorter."""
    return tf.ensure_shape(tf.io.decode_raw(tf.strings.substr(data, position, 1), tf.uint8), [1])[0]


def turn_upright(image: tf.Tensor, data: tf.Tensor, exif_bytes: int) -> tf.Tensor:
    """An image (H, W, C) as the EXIF of its file says that it is to be seen.

    Args:
        image: What was decoded, or a window of it.
        data: The JPEG or PNG file, a scalar string.
        exif_bytes: Its EXIF is seen where it starts within so many bytes: `JPEG_EXIF_BYTES` or `PNG_EXIF_BYTES`.
    """
    has_exif = tf.strings.regex_full_match(tf.strings.substr(data, 0, exif_bytes), _HAS_EXIF)

    def turned():
        # The EXIF is the first segment of a JPEG, at most 64 KB long, and the whole data would take long to search.
        start = tf.strings.substr(data, 0, exif_bytes + (1 << 16))
        value = tf.strings.regex_replace(start, _HAS_TURN, r"\1\2", False)
        first_byte = tf.cast(tf.io.decode_raw(tf.strings.substr(value, 0, 1), tf.uint8)[0], tf.int32)
        turn = tf.where(tf.strings.length(value) == 1, first_byte, 1)
        # Orientations 5 to 8 have rows and columns exchanged; then some of them are mirrored. There are no conditions,
        # since each of them makes the graph larger.
        upright = tf.transpose(image, tf.where(turn >= 5, [1, 0, 2], [0, 1, 2]))
        mirrored = [tf.reduce_any(tf.equal(turn, values)) for values in ((3, 4, 7, 8), (2, 3, 6, 7))]
        return tf.reverse(upright, tf.boolean_mask([0, 1], mirrored))

    return tf.ensure_shape(tf.cond(has_exif, turned, lambda: image), [None, None, image.shape[-1]])
