"""Decodes an image and varies it at random, at the network's size, in a TensorFlow graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.images.files import read_image
from sqz_keras.images.graph import (
    JPEG_START,
    PNG_START,
    decode_jpeg,
    decode_png,
    decode_whole,
    fits,
    jpeg_size,
    jpeg_upright,
    png_size,
    png_upright,
    starts_with,
)
from sqz_keras.images.preprocessing import resize_and_crop

AUGMENTATIONS = ("none", "crop", "authors", "modern")

# Each random choice has its own key above the 32 bits of a seed, so that no two choices draw the same numbers.
_CROP, _MIRROR = 1 << 32, 2 << 32
_WINDOW_AREA, _WINDOW_ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)
_WINDOW_ATTEMPTS = 10


def augmented(
    data: tf.Tensor,
    spec: ModelSpec,
    augmentation: str,
    seed: int,
    position,
    *,
    guarded: bool = True,
    in_python: bool = True,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes and augments an image to the network's size; its randomness depends only on (seed, position).

    Args:
        data: The encoded image, a scalar string: any format that `read_image` knows, whatever its file is called.
        spec: The model's spec; S is its `input_size`.
        augmentation: "none": resized and cropped as in evaluation; "crop": resized as the spec says, then a random
            square of S pixels, where evaluation takes the centre; "authors": "crop", then mirrored with probability
            1/2; "modern": a random window of 8% to 100% of the area and an aspect of 3/4 to 4/3, resized to S, then
            mirrored likewise (RandomResizedCrop of "Going Deeper with Convolutions", section 6).
        seed: The run's seed, in 0..2**32 - 1.
        position: The position of the example in the whole run, scalar int64.
        guarded: see `decode`.
        in_python: see `decode`.

    Returns:
        RGB in 0..255, (S, S, 3): rounded to uint8 for "modern", else float32; its colours are left to
        `preprocess_input`. And 1.0, or 0.0 and a black image if the image could not be decoded.
    """
    size = spec.input_size
    if augmentation == "modern":
        image, weight = _random_window(data, size, seed, position, guarded, in_python)
        image = tf.cast(tf.image.resize(image, (size, size)) + 0.5, tf.uint8)
        return tf.ensure_shape(_mirrored(image, seed, position), (size, size, 3)), weight
    image, weight = decode(data, guarded=guarded, in_python=in_python)
    if augmentation == "none":
        return tf.ensure_shape(resize_and_crop(image, spec), (size, size, 3)), weight
    image = resize_and_crop(image, dataclasses.replace(spec, input_size=spec.preprocessing.resize_to))
    image = tf.image.stateless_random_crop(image, (size, size, 3), seed=_seed(_CROP, seed, position))
    if augmentation == "authors":
        image = _mirrored(image, seed, position)
    return tf.ensure_shape(image, (size, size, 3)), weight


def decode(data: tf.Tensor, *, guarded: bool = True, in_python: bool = True) -> tuple[tf.Tensor, tf.Tensor]:
    """RGB, uint8 (H, W, 3), as `read_image` decodes it: upright, transparency on white; and 1.0.

    Args:
        data: The encoded image, a scalar string.
        guarded: Whether an image that cannot be decoded or exceeds the bounds of `read_image` gives one black pixel and
            0.0, instead of an InvalidArgumentError. This has some cost for every image.
        in_python: Whether Python decodes what is neither JPEG nor PNG. Workers of a tf.data service cannot call it.
    """
    return _by_kind(_decode_jpeg, lambda data: _decode_other(data, in_python), (data,), guarded)


def _by_kind(of_jpeg: Callable, of_other: Callable, values: tuple, guarded: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """Calls the decoder for the image's format on `values`, whose first is the image; returns what `decode` does."""

    def attempt(decoder):
        image, weight = _or_black(decoder, *values) if guarded else (decoder(*values), tf.constant(1.0))
        return tf.ensure_shape(image, (None, None, 3)), weight

    return tf.cond(starts_with(values[0], JPEG_START), lambda: attempt(of_jpeg), lambda: attempt(of_other))


def _or_black(decoder: Callable, data, *others) -> tuple[tf.Tensor, tf.Tensor]:
    """decoder(data, ...) and 1.0; or, if that fails, one black pixel and 0.0."""
    # A dataset is the only place in a graph where an op may fail and the rest continue.
    attempt = tf.data.Dataset.from_tensors((data, *others)).map(lambda *values: (decoder(*values), 1.0))
    black = tf.data.Dataset.from_tensors((tf.zeros((1, 1, 3), tf.uint8), 0.0))
    return attempt.ignore_errors().concatenate(black).take(1).get_single_element()


def _decode_jpeg(data):
    return _decode_checked(data, jpeg_size, decode_jpeg, jpeg_upright)


def _decode_png(data):
    return _decode_checked(data, png_size, decode_png, png_upright)


def _decode_checked(data, size_of: Callable, decoder: Callable, upright: Callable):
    """Decodes an image upright, after its declared size has been checked."""
    with tf.control_dependencies([_within_bounds(size_of(data))]):
        data = tf.identity(data)
    return upright(decoder(data), data)


def _decode_other(data, in_python: bool):
    """Decodes upright what is not a JPEG: a PNG, or any other format that `read_image` knows."""
    return tf.cond(starts_with(data, PNG_START), lambda: _decode_png(data), lambda: _decode_by_pillow(data, in_python))


def _decode_by_pillow(data, in_python: bool):
    def read(data):
        try:
            return read_image(np.asarray(data, object).item())  # an empty string comes as an array
        except ValueError:
            return np.empty((0, 0, 3), np.uint8)  # TensorFlow may raise a Python error outside of the dataset

    # Stateless: otherwise op determinism would let only one thread decode.
    image = tf.numpy_function(read, [data], tf.uint8, stateful=False) if in_python else tf.zeros((0, 0, 3), tf.uint8)
    is_checked = tf.debugging.Assert(tf.size(image) > 0, ["not an image that can be read"])
    with tf.control_dependencies([is_checked]):
        return tf.ensure_shape(tf.identity(image), (None, None, 3))


def _within_bounds(size):
    """An image's (height, width); InvalidArgumentError if it exceeds the bounds of `read_image`."""
    with tf.control_dependencies([tf.debugging.Assert(fits(size), ["too many pixels, or too elongated", size])]):
        return tf.identity(size)


def _seed(key: int, seed: int, position):
    return tf.stack([tf.constant(key + seed, tf.int64), tf.cast(position, tf.int64)])


def _mirrored(image, seed: int, position):
    mirror = tf.random.stateless_uniform((), seed=_seed(_MIRROR, seed, position)) < 0.5
    return tf.cond(mirror, lambda: tf.reverse(image, [1]), lambda: image)


def _random_window(data, size: int, seed: int, position, guarded: bool, in_python: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes a random window of an image; otherwise as `decode`.

    Of a JPEG, only what the window needs is decoded, at the smallest of the scales 1, 1/2, 1/4 and 1/8 that leaves its
    shorter side at least `size` pixels: this is quicker, and it filters.
    """

    def of_jpeg(data, position):
        window = random_window(tf.concat([_within_bounds(jpeg_size(data)), [3]], 0), seed, position)
        halvings = tf.reduce_sum(tf.cast(tf.reduce_min(window[2:]) >= [2 * size, 4 * size, 8 * size], tf.int32))

        def of_window(data):
            branches = [
                lambda ratio=ratio: tf.io.decode_and_crop_jpeg(data, window // ratio, channels=3, ratio=ratio)
                for ratio in (1, 2, 4, 8)
            ]
            return tf.switch_case(halvings, branches)

        return jpeg_upright(decode_whole(of_window, data), data)

    def of_other(data, position):
        image = _decode_other(data, in_python)
        top, left, height, width = tf.unstack(random_window(tf.shape(image), seed, position))
        return image[top : top + height, left : left + width]

    return _by_kind(of_jpeg, of_other, (data, position), guarded)


def random_window(shape: tf.Tensor, seed: int, position) -> tf.Tensor:
    """The window of "modern" for an image of shape (height, width, channels): int32 (top, left, height, width)."""
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        tf.zeros((1, 0, 4)),
        seed=_seed(_CROP, seed, position),
        area_range=_WINDOW_AREA,
        aspect_ratio_range=_WINDOW_ASPECT,
        max_attempts=_WINDOW_ATTEMPTS,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.concat([begin[:2], extent[:2]], 0)
