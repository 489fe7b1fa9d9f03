"""From images to the network's inputs, and from its outputs to names."""

from __future__ import annotations

import sys
import typing
import warnings
from collections.abc import Callable

import numpy as np

from sqz_keras.architecture.colours import BGR_MEANS, TORCH_MEANS, TORCH_STDS
from sqz_keras.architecture.plain_numbers import as_integer
from sqz_keras.architecture.spec import PREPROCESSING_MODES, ModelSpec, Preprocessing, imagenet_classes
from sqz_keras.backend import import_keras

_OVERSHOOT = 64  # how far resampling may overshoot the range of colours
_LARGEST_STANDARDIZED = 3  # above all values that the modes "torch" and "tf" give


def preprocess_input(
    x: typing.Any,
    data_format: typing.Literal["channels_last", "channels_first"] | None = None,
    mode: typing.Literal["authors", "caffe", "torch", "tf"] = "authors",
) -> typing.Any:
    """Converts RGB in 0..255 to what the network was trained on; never changes the caller's array.

    Works inside `tf.data.Dataset.map` with every Keras backend.

    Args:
        x: array or tensor of shape (..., H, W, 3), or (..., 3, H, W) with channels first; any numeric dtype. A tensor
            whose channels, or whole shape, are unknown until the graph runs is accepted.
        data_format: "channels_last", "channels_first", or None for Keras's setting.
        mode: "authors" (BGR minus (104, 117, 123): the authors' weights), "caffe" (BGR minus (103.939, 116.779,
            123.68), as in keras.applications), "torch" (RGB / 255, minus (.485, .456, .406), over (.229, .224, .225):
            torchvision's and Gluon's) or "tf" (RGB / 127.5 - 1). Each record's `spec.preprocessing.mode` names its own.

    Returns:
        A new float32 array (for an array) or tensor (for a tensor; TensorFlow's if x is) of x's shape.

    Raises:
        ValueError: unknown mode or data format, or not 3 channels.
    """
    if mode not in PREPROCESSING_MODES:
        raise ValueError(f"mode must be one of {PREPROCESSING_MODES}, got {mode!r}.")
    data_format = data_format or import_keras().config.image_data_format()
    if data_format not in ("channels_last", "channels_first"):
        raise ValueError(f"data_format must be 'channels_last' or 'channels_first', got {data_format!r}.")
    axis = -1 if data_format == "channels_last" else -3
    array = _as_array("x", x)
    rank_is_known = getattr(array.shape, "rank", 0) is not None  # a tf.TensorShape may lack one
    if rank_is_known and (len(array.shape) < 3 or array.shape[axis] not in (3, None)):
        raise ValueError(f"x must have 3 channels ({data_format}) and at least 3 axes, got shape {tuple(array.shape)}.")
    warn_if_scaled("preprocess_input", array)
    array, reverse, constant = _float32_and_tools(array)

    def along(values):
        return constant(np.asarray(values, np.float32).reshape((3,) + (1,) * (-1 - axis)))

    if mode in BGR_MEANS:
        return reverse(array, axis) - along(BGR_MEANS[mode])
    if mode == "torch":
        return (array / 255.0 - along(TORCH_MEANS)) / along(TORCH_STDS)
    return array / 127.5 - 1.0


def _as_array(name: str, images: typing.Any) -> typing.Any:
    """An array or tensor as it is, and anything else, such as a PIL image or a list, as an array of numbers."""
    if hasattr(images, "shape"):
        return images
    try:
        array = np.asarray(images)
    except ValueError as error:
        raise ValueError(f"{name} must be images of one size; prepare those of several sizes one by one.") from error
    if array.dtype.kind not in "buif":
        raise ValueError(
            f"{name} must be an array or a tensor of colours, got {images!r:.80}; sqz_keras.images.files.read_image "
            "reads a file."
        )
    return array


def warn_if_scaled(function: str, images: typing.Any) -> None:
    """Warns of an array that is probably not RGB in 0..255. It is not refused: it may be a nearly black image."""
    if not isinstance(images, np.ndarray) or images.dtype == np.uint8 or images.dtype.kind not in "buif":
        return
    low, high = (images.min(), images.max()) if images.size else (0, 0)
    if low < -_OVERSHOOT or high > 255 + _OVERSHOOT or (low < 0 and high < _LARGEST_STANDARDIZED):
        values = f"values in {low:.6g}..{high:.6g}"
        cause = f"{values}, as if preprocessed already or of 16 bits: give the image as it was decoded"
    elif 0 < high <= 1 and images.dtype.kind in "bf":
        cause = "no value above 1, as if scaled: multiply by 255"
    else:
        return
    warnings.warn(f"{function} takes RGB in 0..255, got {cause}.", stacklevel=3)


def _float32_and_tools(x) -> tuple[typing.Any, Callable, Callable]:
    """`x` as float32, and two functions for its kind: to reverse an axis, and to make a constant.

    Inside `tf.data.Dataset.map`, tensors are TensorFlow's whatever Keras's backend is; other backends' ops refuse them.
    """
    if isinstance(x, np.ndarray):
        return x.astype(np.float32), np.flip, np.asarray
    tf = sys.modules.get("tensorflow")
    if tf is not None and tf.is_tensor(x):
        return tf.cast(x, tf.float32), lambda x, axis: tf.reverse(x, [axis]), tf.constant
    ops = import_keras().ops
    return ops.cast(x, "float32"), ops.flip, ops.convert_to_tensor


def restore_rgb(inputs: np.ndarray, mode: typing.Literal["authors", "caffe", "torch", "tf"] = "authors") -> np.ndarray:
    """The RGB colours of network inputs, for display: the inverse of `preprocess_input`, rounded to 8 bits.

    Args:
        inputs: Network inputs, float array (..., H, W, 3).
        mode: The mode of `preprocess_input` that made them.

    Returns:
        RGB, a new uint8 array of the same shape.

    Raises:
        ValueError: Unknown mode, or not 3 channels.
    """
    if mode not in PREPROCESSING_MODES:
        raise ValueError(f"mode must be one of {PREPROCESSING_MODES}, got {mode!r}.")
    if inputs.ndim < 3 or inputs.shape[-1] != 3:
        raise ValueError(f"inputs must have 3 channels (channels_last) and at least 3 axes, got shape {inputs.shape}.")
    if mode in BGR_MEANS:
        rgb = (inputs + BGR_MEANS[mode])[..., ::-1]
    elif mode == "torch":
        rgb = (inputs * TORCH_STDS + TORCH_MEANS) * 255
    else:
        rgb = (inputs + 1) * 127.5
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


def prepare_images(images: typing.Any, spec: ModelSpec) -> typing.Any:
    """Turns whole images into the network's inputs: resize, centre crop, `preprocess_input`, as the spec says.

    Evaluation, classification, training and the exported graph all call this one function, also inside a
    TensorFlow graph, where height and width may be unknown.

    Args:
        images: array or tensor (N, H, W, 3) or (H, W, 3), RGB in 0..255, any numeric dtype.
        spec: the spec of the model that takes them; S is its `input_size`.

    Returns:
        A float32 tensor (N, S, S, 3) or (S, S, 3), channels last whatever Keras's image data format is.

    Raises:
        ValueError: `images` has another shape or no pixels, or is a Keras tensor whose size is unknown although the
            spec's resizing needs it; `spec` is not a `ModelSpec`, or its model takes another number of channels.
    """
    check_spec(spec)
    check_takes_rgb(spec)
    warn_if_scaled("prepare_images", images)
    return preprocess_input(resize_and_crop(images, spec), data_format="channels_last", mode=spec.preprocessing.mode)


def check_spec(spec: ModelSpec) -> None:
    """Refuses anything but a model's description.

    Raises:
        ValueError: `spec` is not a `ModelSpec`.
    """
    if not isinstance(spec, ModelSpec):
        raise ValueError(
            f"spec must be a sqz_keras.ModelSpec, got {type(spec).__name__}: the first of the two that resolve_model "
            "returns, or get_record(...).spec."
        )


def check_takes_rgb(spec: ModelSpec) -> None:
    """Refuses a model that cannot take images.

    Raises:
        ValueError: Its input does not have 3 channels.
    """
    if spec.channels != 3:
        raise ValueError(
            f"This model takes {spec.channels} channels, and images are RGB: open it with sqz_keras.load, and give it "
            "arrays of that many channels."
        )


def prepare_image(image: np.ndarray, spec: ModelSpec) -> np.ndarray:
    """`prepare_images` for one image, as an array, which `predict_on_batch` takes on every backend.

    Args:
        image: (H, W, 3), RGB in 0..255.
        spec: The spec of the model that takes it; S is its `input_size`.

    Returns:
        A float32 array (S, S, 3).
    """
    return import_keras().ops.convert_to_numpy(prepare_images(image, spec))


def resize_and_crop(images, spec: ModelSpec):
    """`prepare_images` without its last step: the result is still RGB in 0..255.

    Args:
        images: As in `prepare_images`.
        spec: The spec of the model that takes them; S is its `input_size`.

    Returns:
        A float32 tensor (N, S, S, 3) or (S, S, 3).

    Raises:
        ValueError: `images` is one that `prepare_images` refuses.
    """
    ops = import_keras().ops
    how, crop = spec.preprocessing, spec.input_size
    images = _as_array("images", images)
    _check_shape(images, how)
    images = ops.cast(images, "float32")
    height = width = how.resize_to
    if how.resize == "shortest_side":
        height, width = ops.shape(images)[-3:-1]
        is_static = isinstance(height, int) and isinstance(width, int)
        shortest = min(height, width) if is_static else ops.minimum(height, width)
        height, width = height * how.resize_to // shortest, width * how.resize_to // shortest
    images = _resize(images, height, width, how.antialias)
    top, left = (height - crop) // 2, (width - crop) // 2
    images = images[..., top : top + crop, left : left + crop, :]
    # A crop loses its static shape if only the running graph knows the size of the image.
    return ops.reshape(images, (crop, crop, 3) if len(images.shape) == 3 else (-1, crop, crop, 3))


def _check_shape(images, how: Preprocessing) -> None:
    if getattr(images.shape, "rank", 0) is None:  # a tf.TensorShape whose rank only the running graph knows
        return
    shape = tuple(images.shape)
    if len(shape) not in (3, 4) or shape[-1] not in (3, None):
        raise ValueError(
            f"images must be RGB, of shape (N, H, W, 3) or (H, W, 3), got {shape}. PIL's "
            "image.convert('RGB') makes RGB of any image; channels must be last."
        )
    if 0 in shape[-3:-1]:
        raise ValueError(f"images must have at least one pixel, got shape {shape}.")
    if how.resize == "shortest_side" and None in shape[-3:-1] and import_keras().utils.is_keras_tensor(images):
        raise ValueError(
            f"images must have a height and width for resize='shortest_side' in a Keras model, got {shape}: give its "
            "keras.Input a size, or call prepare_images in the tf.data pipeline."
        )


def _resize(images, height, width, antialias: bool):
    if isinstance(height, int) and isinstance(width, int):
        return import_keras().ops.image.resize(
            images, (height, width), antialias=antialias, data_format="channels_last"
        )
    # keras.ops takes no size that is known only when the graph runs; the TensorFlow op behind it does.
    import tensorflow as tf

    return tf.image.resize(images, (height, width), antialias=antialias)


def decode_predictions(preds: typing.Any, top: int = 5) -> list[list[tuple[str, str, float]]]:
    """The names of the `top` most probable ImageNet classes of each row; works offline.

    Args:
        preds: array (N, 1000) of probabilities, or of the integers of a quantised model.
        top: how many, 1..1000.

    Returns:
        A list of N lists of (wnid, name, score), most probable first.

    Raises:
        ValueError: `preds` has another shape or holds NaN or infinity, or `top` is out of range.
    """
    if not isinstance(preds, np.ndarray | list | tuple):  # a PyTorch tensor may be on a GPU, or have a gradient
        preds = import_keras().ops.convert_to_numpy(preds)
    preds = np.asarray(preds).astype(np.float64)  # an unsigned integer has no negative to sort by
    if preds.ndim != 2 or preds.shape[1] != 1000:
        raise ValueError(
            f"preds must have shape (N, 1000), ImageNet's classes, got {preds.shape}. For other classes take the "
            "labels of the model's ModelSpec."
        )
    if as_integer(top) is None or not 1 <= top <= 1000:
        raise ValueError(f"top must be an integer in 1..1000, got {top!r}.")
    if np.isnan(preds).any():
        raise ValueError("preds must be probabilities, and some are NaN: look for NaN in the images and the weights.")
    if np.isinf(preds).any():
        raise ValueError("preds must be probabilities, and some are infinite: look for huge values in the images.")
    classes = imagenet_classes()
    best = np.argsort(-preds, axis=1, kind="stable")[:, :top]
    return [[(*classes[i], float(row[i])) for i in order] for row, order in zip(preds, best, strict=True)]
