"""The builders' arguments: their types, and their checks, all made before anything is downloaded or built."""

from __future__ import annotations

import os
import typing
import warnings
from collections.abc import Callable, Sequence

import keras

from sqz_keras.architecture.metaparameters import Metaparameters
from sqz_keras.architecture.plain_numbers import as_integer, as_number, require_integer

Integer = typing.SupportsIndex  # an int, or a NumPy integer
Number = typing.SupportsFloat  # a float, an int, or a NumPy number
Shape = Sequence[Integer | None]
Weights = typing.Literal["imagenet"] | str | os.PathLike[str] | None
Pooling = typing.Literal["avg", "max"] | None
Activation = str | Callable[..., typing.Any] | None

DEFAULT_SIZE = 227
# Applied to averages of ReLU outputs, these never fall below 0.5, or log(0.5).
_SIGMOIDS = ("sigmoid", "hard_sigmoid", "log_sigmoid", "sparse_sigmoid")
_OWN_HEAD = (
    "put a head of your own, such as keras.layers.Dense({units}, activation='sigmoid'), on a model with "
    "include_top=False and pooling='avg', or on one with classifier_activation=None"
)


def check_choices(include_top: bool, weights: Weights, pooling: Pooling, activation: Activation) -> None:
    """Refuses choices that do not exist, and an activation that fits neither the ReLU before it nor the weights."""
    if include_top not in (True, False):
        raise ValueError(f"include_top must be True or False, got {include_top!r}.")
    if pooling not in (None, "avg", "max"):
        raise ValueError(f"pooling must be None, 'avg' or 'max', got {pooling!r}.")
    if not include_top:
        return
    if pooling is not None:
        # The caller's line is three calls up: a public builder calls the private one, which calls this.
        warnings.warn(f"pooling={pooling!r} has no effect with include_top=True, and is ignored.", stacklevel=4)
    function = keras.activations.get(activation)
    if function in map(keras.activations.get, _SIGMOIDS):
        raise ValueError(
            f"classifier_activation={activation!r} cannot work: a ReLU follows conv10, so what it would get is never "
            f"below 0, and no score would be below 0.5. Instead {_OWN_HEAD.format(units='classes')}."
        )
    if function not in (keras.activations.softmax, keras.activations.linear) and weights is not None:
        raise ValueError(
            f"classifier_activation must be 'softmax' or None with pretrained weights, got {activation!r}; "
            "pass weights=None for another one."
        )


def check_numbers(
    include_top: bool, classes: Integer, dropout_rate: Number, conv10_padding: Integer | None
) -> tuple[int, float, int | None]:
    """`classes`, `dropout_rate` and `conv10_padding` as plain Python numbers."""
    classes = require_integer("classes", classes, 1)
    if include_top and classes == 1:
        raise ValueError(
            "classes must be at least 2, got 1: the softmax of one class is 1 for every image. Take 2 classes, or "
            f"{_OWN_HEAD.format(units=1)}."
        )
    rate = as_number(dropout_rate)
    if rate is None or not 0 <= rate < 1:
        raise ValueError(f"dropout_rate must be a number in [0, 1), got {dropout_rate!r}.")
    if conv10_padding is not None:
        conv10_padding = require_integer("conv10_padding, where it is not None,", conv10_padding, 0)
    return classes, rate, conv10_padding


def check_input_shape(
    net: Metaparameters, input_shape: Shape | None, input_tensor: keras.KerasTensor | None, include_top: bool
) -> tuple[int | None, ...]:
    """The shape of the input, without the batch."""
    first = keras.config.image_data_format() == "channels_first"
    order = "(channels, height, width)" if first else "(height, width, channels)"
    if input_shape is not None:
        try:
            input_shape = tuple(input_shape)  # a tf.TensorShape or an array is a sequence, too
        except (TypeError, ValueError):
            raise ValueError(f"input_shape must be {order}, without the batch, got {input_shape!r}.") from None
    if input_tensor is not None:
        tensor_shape = _check_input_tensor(input_tensor)
        if input_shape not in (None, tensor_shape):
            raise ValueError(f"input_shape={input_shape} is not input_tensor's {tensor_shape}; leave one out.")
        input_shape = tensor_shape
    if input_shape is None:
        return image_shape(DEFAULT_SIZE if include_top else None, 3)
    if len(input_shape) != 3:
        raise ValueError(f"input_shape must be {order}, without the batch, got {input_shape!r}.")
    channels, *sides = input_shape if first else (input_shape[2], input_shape[0], input_shape[1])
    channels = as_integer(channels)
    if channels is None or channels < 1:
        raise ValueError(f"input_shape must be {order} with a known number of channels, got {input_shape}.")
    least, pixels = net.min_input_size(), []
    for side in sides:
        pixels.append(as_integer(side))
        if side is not None and (pixels[-1] is None or pixels[-1] < least):
            raise ValueError(
                f"input_shape must be {order} with at least {least}x{least} pixels, or None for sides of any length; "
                f"got {input_shape}."
            )
    return (channels, *pixels) if first else (*pixels, channels)


def _check_input_tensor(input_tensor: keras.KerasTensor) -> tuple[int | None, ...]:
    """The shape of a tensor that the first convolution can take, without the batch."""
    if not keras.utils.is_keras_tensor(input_tensor):
        raise ValueError(
            f"input_tensor must be a Keras tensor, such as keras.Input(...) returns; got "
            f"{type(input_tensor).__name__}. To apply the model to values, build it and call it on them."
        )
    if not keras.backend.is_float_dtype(input_tensor.dtype):
        raise ValueError(
            f"input_tensor must be floating point, got {input_tensor.dtype}: give what preprocess_input returns for "
            "it, or keras.ops.cast(input_tensor, 'float32')."
        )
    return tuple(input_tensor.shape[1:])


def image_shape(size: int | None, channels: int) -> tuple[int | None, ...]:
    """The shape of a square image in Keras's image data format."""
    first = keras.config.image_data_format() == "channels_first"
    return (channels, size, size) if first else (size, size, channels)
