"""The SqueezeNet builders: one private builder, whose public variants differ in the architecture that they pass."""

from __future__ import annotations

import os
import typing

import keras
import numpy as np
from keras import layers

from sqz_keras.architecture.layers import bypass_kinds
from sqz_keras.architecture.metaparameters import Metaparameters
from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.models.arguments import (
    Activation,
    Integer,
    Number,
    Pooling,
    Shape,
    Weights,
    check_choices,
    check_input_shape,
    check_numbers,
    image_shape,
)
from sqz_keras.models.blocks import classifier, conv_relu, fire_module, max_pool
from sqz_keras.weights import resolve

_ARGUMENTS = """
    The arguments and their order are those of keras.applications. Inputs are what `preprocess_input` returns for the
    mode that the weights' record names: for "imagenet" BGR in about [-123, 151].

    Args:
        input_shape: (height, width, channels), or channels first if that is Keras's image data format. Height and width
            may be None; images smaller than the network's minimum (21 pixels in v1.0, 17 in v1.1) then give NaN or an
            error. The default is (227, 227, 3) with the top, and (None, None, 3) without it.
        include_top: whether drop9, conv10, pool10 and the activation are part of the model.
        weights: None (random: the authors' initialisers), "imagenet" (downloaded at first use: 0.7 MB for v1.0, 2.5 MB
            for v1.1), another record's name (`sqz_keras.list_records()`), or a path to a file or folder of weights:
            `.weights.h5`, `.keras`, or another file that a reader takes.
        input_tensor: a floating-point Keras tensor to use as the model's input, instead of a new `keras.Input`.
        pooling: without the top: None (feature maps (N, H, W, 512), outputs of ReLUs), "avg" or "max" (N, 512). With
            the top it has no effect, and a warning says so.
        classes: number of classes, at least 2; 1000 if the weights are ImageNet's.
        classifier_activation: "softmax", another activation, or None. conv10 is followed by a ReLU, so with None the
            model returns averages of ReLU outputs: never below 0, and not logits in the usual sense. A sigmoid of such
            averages is never below 0.5, so it is refused: put a head of your own on the model.
        name: Name of the model.
        dropout_rate: Dropout rate of drop9, in [0, 1).
        conv10_padding: rows and columns of zeros around conv10's input. The default is 0, as in the paper's Table 1,
            or what the record of the weights says: the released v1.0 was trained with 1.
"""
_VERSION = """        version: "1.0" or "1.1".
"""
_BYPASS = """        bypass: None, "simple" or "complex" (paper, section 6).
"""
_RESULT = """
    Returns:
        A functional `keras.Model`: float inputs (N, H, W, C) -> float32 (N, classes) with the top.

    Raises:
        ValueError: an argument is not one of those described here, or does not fit the weights. It is raised before
            anything is downloaded or built.
"""


def SqueezeNet(  # noqa: N802 - named as keras.applications names its builders
    input_shape: Shape | None = None,
    include_top: bool = True,
    weights: Weights = "imagenet",
    input_tensor: keras.KerasTensor | None = None,
    pooling: Pooling = None,
    classes: Integer = 1000,
    classifier_activation: Activation = "softmax",
    name: str | None = "squeezenet",
    *,
    version: typing.Literal["1.0", "1.1"] = "1.0",
    bypass: typing.Literal["simple", "complex"] | None = None,
    dropout_rate: Number = 0.5,
    conv10_padding: Integer | None = None,
) -> keras.Model:
    arguments = input_shape, include_top, weights, input_tensor, pooling, classes, classifier_activation, name
    return _squeezenet(ModelSpec(version, bypass), *arguments, dropout_rate, conv10_padding)


SqueezeNet.__doc__ = f"""SqueezeNet (arXiv 1602.07360): v1.0 has 1,248,424 parameters, v1.1 1,235,496.

    No weights are published for bypass="complex", so give weights=None, or a path.
{_ARGUMENTS}{_VERSION}{_BYPASS}{_RESULT}"""


def SqueezeNetV1_1(  # noqa: N802
    input_shape: Shape | None = None,
    include_top: bool = True,
    weights: Weights = "imagenet",
    input_tensor: keras.KerasTensor | None = None,
    pooling: Pooling = None,
    classes: Integer = 1000,
    classifier_activation: Activation = "softmax",
    name: str | None = "squeezenet_v1_1",
    *,
    dropout_rate: Number = 0.5,
    conv10_padding: Integer | None = None,
) -> keras.Model:
    arguments = input_shape, include_top, weights, input_tensor, pooling, classes, classifier_activation, name
    return _squeezenet(ModelSpec("1.1"), *arguments, dropout_rate, conv10_padding)


SqueezeNetV1_1.__doc__ = f"""SqueezeNet v1.1: 1,235,496 parameters, 2.1 times less work.
{_ARGUMENTS}{_RESULT}"""


def SqueezeNetSimpleBypass(  # noqa: N802
    input_shape: Shape | None = None,
    include_top: bool = True,
    weights: Weights = "imagenet",
    input_tensor: keras.KerasTensor | None = None,
    pooling: Pooling = None,
    classes: Integer = 1000,
    classifier_activation: Activation = "softmax",
    name: str | None = "squeezenet_simple_bypass",
    *,
    dropout_rate: Number = 0.5,
    conv10_padding: Integer | None = None,
) -> keras.Model:
    arguments = input_shape, include_top, weights, input_tensor, pooling, classes, classifier_activation, name
    return _squeezenet(ModelSpec("1.0", "simple"), *arguments, dropout_rate, conv10_padding)


SqueezeNetSimpleBypass.__doc__ = f"""SqueezeNet v1.0 with additions around fire3, fire5, fire7 and fire9.

    It has v1.0's 1,248,424 parameters.
{_ARGUMENTS}{_RESULT}"""


def SqueezeNetComplexBypass(  # noqa: N802
    input_shape: Shape | None = None,
    include_top: bool = True,
    weights: Weights = None,
    input_tensor: keras.KerasTensor | None = None,
    pooling: Pooling = None,
    classes: Integer = 1000,
    classifier_activation: Activation = "softmax",
    name: str | None = "squeezenet_complex_bypass",
    *,
    dropout_rate: Number = 0.5,
    conv10_padding: Integer | None = None,
) -> keras.Model:
    arguments = input_shape, include_top, weights, input_tensor, pooling, classes, classifier_activation, name
    return _squeezenet(ModelSpec("1.0", "complex"), *arguments, dropout_rate, conv10_padding)


SqueezeNetComplexBypass.__doc__ = f"""SqueezeNet v1.0 with bypasses around all fire modules: 1,589,672 parameters.

    The paper prints 7.7 MB for it. No weights are published, so `weights` is None by default: random ones. A path works
    too.
{_ARGUMENTS}{_RESULT}"""


def squeezenet_from_metaparameters(
    metaparameters: Metaparameters,
    input_shape: Shape | None = None,
    include_top: bool = True,
    weights: Weights = None,
    input_tensor: keras.KerasTensor | None = None,
    pooling: Pooling = None,
    classes: Integer = 1000,
    classifier_activation: Activation = "softmax",
    name: str | None = "squeezenet",
    *,
    bypass: typing.Literal["simple", "complex"] | None = None,
    dropout_rate: Number = 0.5,
    conv10_padding: Integer | None = None,
) -> keras.Model:
    if not isinstance(metaparameters, Metaparameters):
        raise ValueError(f"metaparameters must be a sqz_keras.Metaparameters, got {type(metaparameters).__name__}.")
    arguments = input_shape, include_top, weights, input_tensor, pooling, classes, classifier_activation, name
    return _squeezenet(ModelSpec(None, bypass, metaparameters), *arguments, dropout_rate, conv10_padding)


squeezenet_from_metaparameters.__doc__ = f"""The member of the SqueezeNet family with these `Metaparameters`.

    No weights are published for it, so `weights` is None by default: random ones. A path works too.
{_ARGUMENTS}        metaparameters: Numbers of filters and places of the pools (paper, section 5).
{_BYPASS}{_RESULT}"""


def load(model: str | os.PathLike, *, version: str | None = None, bypass: str | None = None) -> keras.Model:
    """The model that a record's name, file or folder holds, with its weights.

    Args:
        model: "imagenet", another record's name, or a path; see `resolve_model`.
        version: "1.0" or "1.1", if the file does not say.
        bypass: "simple" or "complex", if the file does not say.

    Returns:
        A functional `keras.Model` with the top and a softmax.

    Raises:
        ValueError: there is no such model, or the file is damaged or not a SqueezeNet.
    """
    return build(*resolve.resolve_model(model, version=version, bypass=bypass))


def build(spec: ModelSpec, arrays: dict[str, np.ndarray] | None = None, dropout_rate: float = 0.5) -> keras.Model:
    """The model that a `ModelSpec` describes, with the top and a softmax; its weights are `arrays`, if given."""
    model = _build_graph(
        spec, image_shape(spec.input_size, spec.channels), True, None, None, "softmax", "squeezenet", dropout_rate
    )
    if arrays is not None:
        assign(model, arrays)
    return model


def assign(model: keras.Model, arrays: dict[str, np.ndarray]) -> None:
    """Puts named arrays ("conv1/kernel", ...; kernels HWIO) into the layers that they name, and skips other layers."""
    for layer in model.layers:
        if f"{layer.name}/kernel" in arrays:
            layer.set_weights([arrays[f"{layer.name}/kernel"], arrays[f"{layer.name}/bias"]])


def named_arrays(model: keras.Model) -> dict[str, np.ndarray]:
    """A Keras or tf_keras model's convolution weights by name, in net order; the inverse of `assign`."""
    arrays = {}
    for layer in model.layers:
        if type(layer).__name__ == "Conv2D":
            arrays[f"{layer.name}/kernel"], arrays[f"{layer.name}/bias"] = layer.get_weights()
    return arrays


def _squeezenet(
    architecture: ModelSpec,
    input_shape: Shape | None,
    include_top: bool,
    weights: Weights,
    input_tensor: keras.KerasTensor | None,
    pooling: Pooling,
    classes: Integer,
    activation: Activation,
    name: str | None,
    dropout_rate: Number,
    conv10_padding: Integer | None,
) -> keras.Model:
    """Checks the arguments, finds the weights, builds the graph and fills it, in this order."""
    check_choices(include_top, weights, pooling, activation)
    classes, dropout_rate, conv10_padding = check_numbers(include_top, classes, dropout_rate, conv10_padding)
    shape = check_input_shape(architecture.metaparameters, input_shape, input_tensor, include_top)
    channels = shape[0] if keras.config.image_data_format() == "channels_first" else shape[-1]
    spec, arrays = resolve.for_architecture(
        weights,
        architecture,
        channels=channels,
        classes=classes if include_top else None,
        conv10_padding=conv10_padding,
        activation=getattr(keras.activations.get(activation), "__name__", None) if include_top else None,
    )
    model = _build_graph(spec, shape, include_top, input_tensor, pooling, activation, name, dropout_rate)
    if arrays is not None:
        assign(model, arrays)
    return model


def _build_graph(spec, input_shape, include_top, input_tensor, pooling, activation, name, dropout_rate) -> keras.Model:
    """The network, top to bottom (paper, Table 1)."""
    net, data_format = spec.metaparameters, keras.config.image_data_format()
    inputs = keras.Input(input_shape, name="images") if input_tensor is None else input_tensor

    x = conv_relu(inputs, net.stem_filters, net.stem_kernel, "conv1", data_format, strides=2)
    if 1 in net.pool_after:
        x = max_pool(x, "pool1", data_format)
    for fire, bypass in zip(net.fire_modules(), bypass_kinds(net, spec.bypass), strict=True):
        x = fire_module(x, fire, bypass, data_format)
        if fire.number in net.pool_after:
            x = max_pool(x, f"pool{fire.number}", data_format)

    if include_top:
        x = classifier(x, spec.classes, activation, dropout_rate, spec.conv10_padding, data_format)
    elif pooling == "avg":
        x = layers.GlobalAveragePooling2D(data_format=data_format, name="avg_pool")(x)
    elif pooling == "max":
        x = layers.GlobalMaxPooling2D(data_format=data_format, name="max_pool")(x)
    if input_tensor is not None:
        sources = keras.utils.get_source_inputs(input_tensor)
        inputs = sources[0] if len(sources) == 1 else sources
    return keras.Model(inputs, x, name=name)
