"""The pieces of the network: functions tensor -> tensor whose `name` prefixes the layers that they make."""

from __future__ import annotations

import keras
from keras import layers

from sqz_keras.architecture.metaparameters import FireFilters


def conv_relu(x, filters: int, kernel_size: int, name: str, data_format: str, **options):
    """A convolution with the authors' initialisers and a ReLU: (N, H, W, C) -> (N, H', W', filters).

    Caffe's "xavier" filler is uniform(+-sqrt(3 / fan_in)), which Keras calls `lecun_uniform`.
    """
    options.setdefault("kernel_initializer", "lecun_uniform")
    return layers.Conv2D(filters, kernel_size, activation="relu", data_format=data_format, name=name, **options)(x)


def max_pool(x, name: str, data_format: str):
    """Caffe's max pool of 3x3 with stride 2, in ceil mode: (N, H, W, C) -> (N, ceil((H - 3) / 2) + 1, ..., C).

    Adds one row and one column of zeros at the bottom and right, then does a "valid" pool. If H is odd, the extra row
    lies outside every window. The zeros never win, because every map that is pooled here holds values of at least 0:
    outputs of a ReLU, or sums of them.
    """
    x = layers.ZeroPadding2D(((0, 1), (0, 1)), data_format=data_format, name=f"{name}_pad")(x)
    return layers.MaxPooling2D(3, 2, data_format=data_format, name=name)(x)


def fire_module(x, filters: FireFilters, bypass: str | None, data_format: str):
    """A fire module (paper, section 3.2): (N, H, W, C) -> (N, H, W, expand1x1 + expand3x3).

    Args:
        x: Output of a ReLU, or a sum of such outputs.
        filters: Filters of the squeeze and both expand layers; their `name` prefixes the layers' names.
        bypass: What is added to the output: None, "identity" or "convolution" (paper, figure 2). The 1x1 convolution
            has a ReLU, and none follows the addition, as in the authors' own generator.
        data_format: "channels_last" or "channels_first".
    """
    name = filters.name
    squeezed = conv_relu(x, filters.squeeze1x1, 1, f"{name}_squeeze1x1", data_format)
    expand1x1 = conv_relu(squeezed, filters.expand1x1, 1, f"{name}_expand1x1", data_format)
    expand3x3 = conv_relu(squeezed, filters.expand3x3, 3, f"{name}_expand3x3", data_format, padding="same")
    channel_axis = 1 if data_format == "channels_first" else -1
    outputs = layers.Concatenate(axis=channel_axis, name=f"{name}_concat")([expand1x1, expand3x3])
    if bypass is None:
        return outputs
    if bypass == "convolution":
        x = conv_relu(x, filters.channels, 1, f"{name}_bypass1x1", data_format)
    return layers.Add(name=f"{name}_add")([x, outputs])


def classifier(x, classes: int, activation, dropout_rate: float, padding: int, data_format: str):
    """Dropout, conv10, global average and activation (paper, Table 1): (N, H, W, C) -> (N, classes) in float32.

    conv10 is followed by a ReLU, so the averages are never negative. The authors draw its kernel from normal(0, 0.01).
    """
    x = layers.Dropout(dropout_rate, name="drop9")(x)
    if padding:
        x = layers.ZeroPadding2D(padding, data_format=data_format, name="conv10_pad")(x)
    initializer = keras.initializers.RandomNormal(stddev=0.01)
    x = conv_relu(x, classes, 1, "conv10", data_format, kernel_initializer=initializer)
    x = layers.GlobalAveragePooling2D(data_format=data_format, name="pool10")(x)
    return layers.Activation(activation, dtype="float32", name="predictions")(x)
