"""Images decoded inside a TensorFlow graph, as `sqz_keras.images.files` decodes them outside: JPEG and PNG."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from sqz_keras.images.pillow import JPEG_END, MAX_ASPECT_RATIO, MAX_PIXELS, MISSING_GREY, MORE_PIXELS

_MISSING_INK = 64  # or 63: what TensorFlow makes of a missing pixel of four inks
JPEG_START, PNG_START = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00d" + bytes(5)  # a JPEG's segment that says: four inks, inverted

# Where a PNG's header (the chunk IHDR) has the width and height, the bits per sample, and the kind of colours.
_PNG_SIZE, _PNG_DEPTH, _PNG_COLOUR = 16, 24, 25
_PALETTE = 3
_PNG_CHUNKS = 33  # where the chunks after the header begin
_PNG_LAST_BYTES = 4096  # where EXIF after the pixels is looked for

# What follows the chunk's name eXIf; some programs begin it as in a JPEG. (?s)\C is any byte.
_BEHIND_NAME = r"(?s)\C*?(?:eXIf(?:Exif\x00\x00)?((?:II\*\x00|MM\x00\*)\C*)|\z)"
_EXIF_WORDS = (0x4578, 0x6966, 0)  # "Exif" and two zeros, in 16 bits each
_APP1, _PIXELS_OR_END = 0xFFE1, (0xFFDA, 0xFFD9)  # markers of a JPEG
_MOST_SEGMENTS = 10_000  # to look at; a hostile file has millions of fill bytes
_JPEG_LOOK = 10  # bytes of a segment to look at: up to where the EXIF itself begins
# An image directory of EXIF, up to the entry "orientation" (tag 0x0112, one value, of 2 or 4 bytes) that is not 1; an
# entry has 12 bytes.
_HAS_TURN = (
    r"(?s)(?:\C{12})*?(?:\x12\x01[\x03\x04]\x00\x01\x00\x00\x00([\x02-\x08])\x00"
    r"|\x01\x12\x00(?:\x03\x00\x00\x00\x01|\x04\x00\x00\x00\x01\x00\x00)\x00([\x02-\x08]))\C*"
)

# Keeps a function as one operation: each operation of a branch takes time even if the branch is not taken.
_SEPARATE = tf.function(
    input_signature=[tf.TensorSpec((), tf.string)], autograph=False, experimental_attributes={"_noinline": True}
)


def starts_with(data: tf.Tensor, start: bytes) -> tf.Tensor:
    """Whether an encoded image, a scalar string, begins with `start`; a scalar bool."""
    return tf.equal(tf.strings.substr(data, 0, len(start)), start)


def jpeg_size(data: tf.Tensor) -> tf.Tensor:
    """(height, width) that a JPEG declares, int32."""
    return tf.io.extract_jpeg_shape(data)[:2]


def png_size(data: tf.Tensor) -> tf.Tensor:
    """(height, width) that a PNG declares, int32; negative if they do not fit into int32."""
    width_and_height = tf.io.decode_raw(tf.strings.substr(data, _PNG_SIZE, 8), tf.int32, little_endian=False)
    return tf.reverse(tf.ensure_shape(width_and_height, [2]), [0])


def fits(size: tf.Tensor) -> tf.Tensor:
    """Whether an image's (height, width) is within the bounds of `sqz_keras.images.pillow`; false for sizes below 1."""
    height, width = tf.unstack(tf.cast(size, tf.int64))
    shortest, longest = tf.minimum(height, width), tf.maximum(height, width)
    small = (height * width <= MAX_PIXELS) & (longest <= shortest * MAX_ASPECT_RATIO)
    return small & (shortest >= 1)


def decode_jpeg(data: tf.Tensor) -> tf.Tensor:
    """RGB, uint8 (H, W, 3), from a colour, grey or CMYK JPEG; see `decode_whole`.

    The DCT is the one that Pillow uses; TensorFlow's default is up to 6 levels off. The RGB of a CMYK image may differ
    from Pillow's by one level, because TensorFlow truncates and Pillow rounds.
    """
    return decode_whole(lambda data: tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE"), data)


def decode_whole(decoder: Callable[[tf.Tensor], tf.Tensor], data: tf.Tensor) -> tf.Tensor:
    """What `decoder` makes of a JPEG, all of it or a window; InvalidArgumentError if pixels are missing.

    Like Pillow and browsers, this reads four inks as Adobe writes them, inverted, whether the file says so or not.
    """
    image = decoder(data)
    is_cmyk = tf.equal(tf.io.extract_jpeg_shape(data)[2], 4)
    last = image[-1, -1]
    is_missing_ink = is_cmyk & (tf.equal(last, _MISSING_INK) | tf.equal(last, _MISSING_INK - 1))
    may_end_early = tf.reduce_all(tf.equal(last, MISSING_GREY) | is_missing_ink)

    def in_doubt():
        # The JPEG library's warning of missing pixels reaches nobody. Pixels are missing if adding more changes the
        # image. The library warns of added pixels too, on stderr, so a good image of four inks does not get any.
        end = tf.strings.length(data) - len(JPEG_END)
        more = tf.where(may_end_early, MORE_PIXELS, b"")
        longer = tf.strings.join([tf.strings.substr(data, 0, end), more, JPEG_END])
        has_end = tf.equal(tf.strings.substr(data, end, -1), JPEG_END)
        is_whole = ~has_end | tf.reduce_all(tf.equal(*(tf.io.decode_jpeg(file, channels=3) for file in (longer, data))))
        inverted = tf.strings.join([JPEG_START[:2], _ADOBE, tf.strings.substr(data, 2, -1)])
        # An assertion would slow down this condition, and with it every image.
        return decoder(tf.where(is_whole, tf.where(is_cmyk, inverted, data), "pixels are missing"))

    return tf.cond(is_cmyk | may_end_early, in_doubt, lambda: image)


def decode_png(data: tf.Tensor) -> tf.Tensor:
    """RGB, uint8 (H, W, 3), from any PNG; transparency is laid on white, rounded as Pillow does it."""
    depth = tf.cast(_byte(data, _PNG_DEPTH), tf.int32)
    is_small_palette = (_byte(data, _PNG_COLOUR) == _PALETTE) & (depth < 8)

    def of_small_palette():
        # Gives three channels if the file has no transparency; channels=4 would add an alpha of 1 to 15.
        image = tf.cast(tf.io.decode_png(data, channels=0), tf.int32)
        alpha = tf.cond(tf.shape(image)[2] == 4, lambda: image[..., 3:], lambda: tf.fill(tf.shape(image[..., :1]), 255))
        return tf.concat([image[..., :3], alpha], -1)

    def of_other():
        rgba = tf.cast(tf.io.decode_png(data, channels=4), tf.int32)
        # TensorFlow gives a grey file of `depth` bits this alpha if it has no transparency, and 0 or 255 if it has.
        filled = tf.bitwise.left_shift(1, tf.minimum(depth, 8)) - 1
        alpha = tf.where(rgba[..., 3:] == filled, 255, rgba[..., 3:])
        return tf.concat([rgba[..., :3], alpha], -1)

    rgba = tf.ensure_shape(tf.cond(is_small_palette, of_small_palette, of_other), [None, None, 4])
    colour, alpha = rgba[..., :3], rgba[..., 3:]
    return tf.cast((colour * alpha + 255 * (255 - alpha) + 127) // 255, tf.uint8)


def _byte(data: tf.Tensor, position: int) -> tf.Tensor:
    """One byte of a file, a scalar uint8; InvalidArgumentError if the file is shorter."""
    return tf.ensure_shape(tf.io.decode_raw(tf.strings.substr(data, position, 1), tf.uint8), [1])[0]


def jpeg_upright(image: tf.Tensor, data: tf.Tensor) -> tf.Tensor:
    """An image (H, W, C), or a window of it, turned upright as the EXIF of its JPEG says.

    Args:
        image: The decoded image, or the window.
        data: The file, a scalar string.
    """
    return _upright(image, data, _is_plain_jpeg, _jpeg_turn)


def png_upright(image: tf.Tensor, data: tf.Tensor) -> tf.Tensor:
    """As `jpeg_upright`, for a PNG."""
    return _upright(image, data, _is_plain_png, _png_turn)


def _upright(image: tf.Tensor, data: tf.Tensor, is_plain: Callable, find_turn: Callable) -> tf.Tensor:

    def upright():
        turn = find_turn(data)
        # Orientations 5 to 8 have rows and columns exchanged; then some orientations are mirrored. There are no
        # conditions, because each one would make the graph larger.
        exchanged = tf.transpose(image, tf.where(turn >= 5, [1, 0, 2], [0, 1, 2]))
        mirrored = [tf.reduce_any(tf.equal(turn, values)) for values in ((3, 4, 7, 8), (2, 3, 6, 7))]
        return tf.reverse(exchanged, tf.boolean_mask([0, 1], mirrored))

    return tf.ensure_shape(tf.cond(is_plain(data), lambda: image, upright), [None, None, image.shape[-1]])


def _is_plain_jpeg(data: tf.Tensor) -> tf.Tensor:
    """Whether a JPEG surely has no EXIF, like many JPEGs; this search is quicker than `_jpeg_turn`."""
    without = tf.strings.regex_replace(data, r"Exif\x00\x00", "", False)
    return tf.equal(tf.strings.length(without), tf.strings.length(data))


@_SEPARATE
def _jpeg_turn(data: tf.Tensor) -> tf.Tensor:
    """The orientation in the EXIF of a JPEG that could be decoded, 1 to 8; 1 if it has none."""
    last = tf.strings.length(data) - _JPEG_LOOK

    def words(at):  # the marker, the length, and the bytes with which EXIF would begin
        return tf.ensure_shape(
            tf.io.decode_raw(tf.strings.substr(data, at, _JPEG_LOOK), tf.uint16, little_endian=False), [5]
        )

    def is_exif(segment):
        return tf.equal(segment[0], _APP1) & tf.reduce_all(tf.equal(segment[2:], _EXIF_WORDS))

    def is_other(at, segment):
        is_before_pixels = tf.equal(segment[0] // 256, 0xFF) & tf.reduce_all(tf.not_equal(segment[0], _PIXELS_OR_END))
        return (at < last) & is_before_pixels & ~is_exif(segment)

    def following(at, segment):
        # A marker may follow any number of bytes 0xFF.
        size = tf.where(tf.equal(segment[0], 0xFFFF), 1, 2 + tf.cast(segment[1], tf.int32))
        at = tf.minimum(at + size, last)
        return at, words(at)

    at, segment = tf.while_loop(is_other, following, (2, words(2)), maximum_iterations=_MOST_SEGMENTS)
    size = tf.where(is_exif(segment), tf.cast(segment[1], tf.int32) - 8, 0)
    return _orientation(tf.strings.substr(data, at + _JPEG_LOOK, size))


def _is_plain_png(data: tf.Tensor) -> tf.Tensor:
    """Whether a PNG is just a header, one chunk of pixels and the end, and so has no EXIF, as small files are."""
    end = _PNG_CHUNKS + 12 + _number(data, _PNG_CHUNKS, 4) + 12
    return tf.equal(_chunk_name(data, _PNG_CHUNKS), b"IDAT") & tf.equal(tf.strings.length(data), end)


@_SEPARATE
def _png_turn(data: tf.Tensor) -> tf.Tensor:
    """The orientation in the EXIF of a PNG that could be decoded, 1 to 8; 1 if it has none.

    EXIF after the pixels is found only if it begins in the last 4 KB.
    """
    length = tf.strings.length(data)

    def is_other(at):
        return (at < length - 12) & tf.reduce_all(tf.not_equal(_chunk_name(data, at), [b"IDAT", b"eXIf"]))

    def following(at):
        return [tf.minimum(at + 12 + _number(data, at, 4), length - 12)]

    (at,) = tf.while_loop(is_other, following, [_PNG_CHUNKS])
    is_found = tf.equal(_chunk_name(data, at), b"eXIf")
    start = tf.where(is_found, at, tf.maximum(at, length - _PNG_LAST_BYTES))
    part = tf.strings.substr(data, start, tf.where(is_found, _number(data, at, 4) + 8, _PNG_LAST_BYTES))
    return _orientation(tf.strings.regex_replace(part, _BEHIND_NAME, r"\1", False))


def _chunk_name(data: tf.Tensor, at) -> tf.Tensor:
    return tf.strings.substr(data, at + 4, 4)


def _orientation(exif: tf.Tensor) -> tf.Tensor:
    """The orientation in the first image directory of EXIF, 1 to 8; 1 if it states none or is damaged."""
    exif = tf.strings.join([exif, bytes(10)])
    is_big = tf.equal(tf.strings.substr(exif, 0, 4), b"MM\0*")
    is_known = is_big | tf.equal(tf.strings.substr(exif, 0, 4), b"II*\0")
    start = tf.minimum(_number(exif, 4, 4, is_big), tf.strings.length(exif) - 2)
    entries = tf.strings.substr(exif, start + 2, 12 * _number(exif, start, 2, is_big))
    value = tf.strings.regex_replace(entries, _HAS_TURN, r"\1\2", False)
    first_byte = _number(tf.strings.join([value, b"\0"]), 0, 1)
    return tf.where(is_known & tf.equal(tf.strings.length(value), 1), first_byte, 1)


def _number(data: tf.Tensor, at, size: int, is_big=True) -> tf.Tensor:
    """The number in `size` bytes of a string, int32; of four bytes, only the lower three count."""
    digits = tf.ensure_shape(tf.io.decode_raw(tf.strings.substr(data, at, size), tf.uint8), [size])
    digits = tf.cast(tf.where(is_big, digits, tf.reverse(digits, [0])), tf.int32)[-3:]
    return tf.reduce_sum(digits * [65536, 256, 1][-min(size, 3) :])
