"""Where a network sees a class: conv10's own map of the class, and that map drawn over the image.

Zhou et al. (arXiv 1512.04150) compute a class activation map from a linear layer after the global average. Here the
classifier is a convolution before that average (paper, section 3 and Table 1), so the map is there already.
"""

from __future__ import annotations

import typing
import warnings

import keras
import numpy as np
from PIL import Image

from sqz_keras.architecture.colours import BGR_MEANS
from sqz_keras.architecture.plain_numbers import require_integer
from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.images.preprocessing import check_spec, warn_if_scaled
from sqz_keras.images.resizing import target_size

# Inferno, by van der Walt and Smith (CC0), in equal steps. Its lightness rises evenly, so it is readable in grey too.
_COLOURS = ("000004", "210c4a", "56106e", "89226a", "bb3754", "e35932", "f98c0a", "f9c932", "fcffa4")
_LARGEST_PREPARED = 255 - min(map(min, BGR_MEANS.values()))  # the largest value that any mode gives
_LEAST_COVER, _MOST_COVER = 0.35, 0.7  # share of the colour in a pixel, where the map is 0 and where it is largest


class ClassMaps:
    """The class maps of one model, for many images; `class_map` is for a single image.

    Args:
        model: A SqueezeNet of any architecture with its top, as the builders and `load` return it.

    Raises:
        ValueError: The model has no top.
    """

    def __init__(self, model: keras.Model):
        if not isinstance(model, keras.Model):
            raise ValueError(f"model must be a Keras model, got {type(model).__name__}; sqz_keras.load makes one.")
        conv10 = next((layer for layer in model.layers if layer.name == "conv10"), None)
        if conv10 is None:
            raise ValueError(
                f"class_map needs a SqueezeNet with its top, and model {model.name!r} has no layer conv10 of its own; "
                "build it with include_top=True, and pass the SqueezeNet itself if another model contains it."
            )
        self._channels_first = conv10.data_format == "channels_first"
        self._takes_prepared = model.layers[1].name == "conv1"  # not a layer that prepares the image
        self._expected = (1, *model.input_shape[1:])
        self._to_maps = keras.Model(model.input, conv10.output)

    def __call__(self, image: typing.Any, class_id: int | None = None) -> np.ndarray:
        """The map of a class for an image; arguments, result and errors are those of `class_map`."""
        given, expected = keras.ops.convert_to_numpy(image), self._expected
        if given.dtype.kind in "OSU":
            raise ValueError(
                f"image must be the model's input, got {image!r:.80}; prepare_images(read_image(path), spec) makes it."
            )
        inputs = given.astype(np.float32)
        batch = inputs[None] if inputs.ndim == 3 else inputs
        if batch.ndim != len(expected) or any(
            side not in (None, actual) for side, actual in zip(expected, batch.shape, strict=True)
        ):
            made = "prepare_images makes it"
            if self._channels_first:
                made = "it is np.moveaxis(image, -1, -3) of what prepare_images returns"
            raise ValueError(
                f"image must be the model's input for one image, of shape {expected[1:]} or {expected}, got "
                f"{inputs.shape}; {made}."
            )
        if not np.isfinite(batch).all():
            raise ValueError("image must hold numbers, and some are NaN or infinite: look at how it was prepared.")
        if None in expected and not self._has_map(batch.shape):
            raise ValueError(f"image is too small for this network, which has no map of it; got {inputs.shape}.")
        if self._takes_prepared:
            _check_is_prepared(given.dtype, inputs)
        maps = keras.ops.convert_to_numpy(self._to_maps(batch, training=False))[0].astype(np.float32)
        maps = maps if self._channels_first else np.moveaxis(maps, -1, 0)
        if class_id is None:
            return maps[np.argmax(maps.mean(axis=(1, 2)))]
        return maps[require_integer("class_map: class_id", class_id, 0, len(maps) - 1)]

    def _has_map(self, shape: tuple[int, ...]) -> bool:
        try:
            return 0 not in self._to_maps.compute_output_shape(shape)
        except ValueError:  # some Keras layers refuse such a shape themselves
            return False


def _check_is_prepared(dtype: np.dtype, inputs: np.ndarray) -> None:
    """Refuses an image that is still uint8, and warns of values that look like an unprepared image's."""
    if dtype == np.uint8:
        raise ValueError(
            "image must be the model's input, and uint8 is a picture's own type: give what prepare_images returns."
        )
    if inputs.min() >= 0 and inputs.max() > _LARGEST_PREPARED:
        warnings.warn(
            f"class_map takes the model's input, got values in {inputs.min():.6g}..{inputs.max():.6g}, as in a picture "
            "that was not prepared: give what prepare_images returns.",
            stacklevel=4,
        )


def class_map(model: keras.Model, image: typing.Any, class_id: int | None = None) -> np.ndarray:
    """What conv10 says about a class at each place of an image, after its ReLU and before the average.

    The mean of the map is what the softmax gets for the class: its logit.

    Args:
        model: A SqueezeNet of any architecture with its top, as the builders and `load` return it.
        image: The model's input for one image, as `prepare_images` returns it: array or tensor (S, S, 3) or
            (1, S, S, 3), channels first if the model is.
        class_id: Index of the class. None: the class with the highest mean, which is the model's answer.

    Returns:
        float32 (H, W), at least 0 and without an upper bound, in conv10's resolution. For an input of 227x227 that is
        (13, 13) with v1.0 and (14, 14) with v1.1, and 2 more on each axis if conv10 is padded by 1. `overlay` draws
        it over the image.

    Raises:
        ValueError: The model has no top; the image does not fit the model, holds NaN or infinity, or is uint8, which
            no model's input is; or there is no such class.
    """
    return ClassMaps(model)(image, class_id)


def overlay(image: np.ndarray, values: np.ndarray, spec: ModelSpec) -> np.ndarray:
    """The whole image in grey, with a class map over it in colours.

    Each value is drawn at the centre of the pixels that it was computed from, and interpolated linearly between these
    centres; the resizing and cropping of `prepare_images` is undone. Black is 0 and light yellow the map's largest
    value, so the colours of two maps cannot be compared. What the crop left out is dark and uncoloured.

    Args:
        image: The image before `prepare_images`: (H, W, 3), RGB in 0..255, any numeric dtype.
        values: What `class_map` returned for it.
        spec: The model's spec, with the preprocessing and the input size that were used for the image.

    Returns:
        RGB, uint8 (H, W, 3), as large as the image.

    Raises:
        ValueError: The image has another shape or range, or the map does not come from this spec's network.
    """
    check_spec(spec)
    image, values = np.asarray(image), np.asarray(values, np.float32)
    side = next(layer.size for layer in spec.layers() if layer.name == "conv10")
    if image.ndim != 3 or image.shape[-1] != 3 or not image.size:
        raise ValueError(f"image must have shape (H, W, 3), got {image.shape}.")
    if values.shape != (side, side) or not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError(
            "values must be what class_map returns: finite, at least 0 and, for this spec's input of "
            f"{spec.input_size} pixels, of shape {(side, side)}; got shape {values.shape}. Give the spec of the model "
            "that made them."
        )
    if not (image.min() >= 0 and image.max() <= 255):
        raise ValueError(
            f"image must be RGB in 0..255, not the network's input; got values in {image.min()}..{image.max()}."
        )
    warn_if_scaled("overlay", image)
    rgb = np.rint(image).astype(np.uint8)
    grey = np.array(Image.fromarray(rgb).convert("L"))
    (rows, seen_rows), (columns, seen_columns) = (
        _weights(size, new_size, side, spec)
        for size, new_size in zip(grey.shape, target_size(*grey.shape, spec), strict=True)
    )
    seen = seen_rows[:, None] & seen_columns
    grey[~seen] //= 2
    levels = np.rint(rows @ (values * (255 / (values.max() or 1))) @ columns.T).astype(np.uint8)
    cover = np.rint(255 * np.linspace(_LEAST_COVER, _MOST_COVER, 256)).astype(np.uint8)[levels] * seen
    colours = Image.fromarray(colour_scale()[levels])
    return np.asarray(Image.composite(colours, Image.fromarray(grey).convert("RGB"), Image.fromarray(cover)))


def colour_scale() -> np.ndarray:
    """The colours of `overlay` from 0 to a map's largest value: RGB, uint8 (256, 3)."""
    points = np.array([list(bytes.fromhex(colour)) for colour in _COLOURS])
    places = np.linspace(0, len(points) - 1, 256)
    channels = [np.interp(places, np.arange(len(points)), channel) for channel in points.T]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def _weights(size: int, new_size: int, side: int, spec: ModelSpec) -> tuple[np.ndarray, np.ndarray]:
    """Float32 (size, side), the weights of a map's values in each pixel, along one axis; and which pixels were seen.

    Args:
        size: Pixels of the image's height or width.
        new_size: What it is resized to before the crop.
        side: The map's height or width.
        spec: The network's spec.
    """
    start, step = 0.5, 1  # the first value's centre, and the distance to the next, in the input's pixels
    for layer in spec.layers():
        if layer.kind in ("convolution", "max pool"):
            start += step * ((layer.kernel - 1) / 2 - layer.padding)
            step *= layer.stride
    places = (np.arange(size) + 0.5) * new_size / size - (new_size - spec.input_size) // 2
    positions = np.clip((places - start) / step, 0, side - 1)
    weights = np.maximum(0, 1 - np.abs(positions[:, None] - np.arange(side)))
    return weights.astype(np.float32), (places > 0) & (places < spec.input_size)
