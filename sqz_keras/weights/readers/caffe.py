"""Caffe's `.caffemodel`, a NetParameter message: the layers' blobs are read, and what the layers compute.

Fields of the public message layout (caffe.proto), beside those of layers (`caffe_layers`):
BlobProto: num 1, channels 2, height 3, width 4, data 5 (packed float), shape 7, double_data 8 (packed double).
BlobShape: dim 1.
"""

from __future__ import annotations

import math
import os

import numpy as np

from sqz_keras.architecture.colours import BGR_MEANS
from sqz_keras.architecture.metaparameters import VERSIONS, version_of_stem
from sqz_keras.architecture.spec import MOST_PADDING
from sqz_keras.protobuf import BYTES, VARINT
from sqz_keras.weights.arrays import (
    WeightsFileError,
    check_declared,
    check_kernel_rank,
    float32_arrays,
    hwio,
    hwio_shape,
    layer_name,
    read_bytes,
)
from sqz_keras.weights.description import Hints
from sqz_keras.weights.readers.caffe_layers import CONVOLUTION, LAYERS, Layer, changes_of, numbers_of, read_layer
from sqz_keras.weights.readers.heads import find_head
from sqz_keras.weights.readers.wire import WireReader

_TRANSFORMATION = {"scale": (1, 1, 1, 1.0), "crop_size": (3, 3, 3, 0), "mean_value": (5, 5, 5, 0.0)}
_MEAN_FILE = 4
_LEGACY_SHAPE = {1: 0, 2: 1, 3: 2, 4: 3}
_DATA = {5: np.dtype("<f4"), 8: np.dtype("<f8")}


def read(path: str | os.PathLike, trunk_only: bool = False) -> dict[str, np.ndarray]:
    """The arrays of `read_described`, whatever the layers compute."""
    return _read(path, WireReader(path), trunk_only)[0]


def read_described(path: str | os.PathLike, trunk_only: bool = False) -> tuple[dict[str, np.ndarray], Hints]:
    """Reads the convolutions of a `.caffemodel`, and what its layers say about the network.

    Args:
        path: the file.
        trunk_only: whether heads that are not named conv10, such as the "conv10-new" of a fine-tuned net, are left
            out.

    Returns:
        float32 arrays by name, kernels HWIO, in net order. The input's channels stay in the file's order (BGR in the
        authors' releases). Also conv10's padding, whether there is a bypass, and how images were prepared for training,
        as far as the file says.

    Raises:
        WeightsFileError: the file is damaged or too large, has weights or layers that no SqueezeNet has, or pads the
            sides of conv10's input differently.
    """
    reader = WireReader(path)
    arrays, layers, head, padding = _read(path, reader, trunk_only)
    if all(layer.type is None for layer in layers):
        return arrays, Hints(conv10_padding=padding)
    *window, _, filters = arrays.get("conv1/kernel", np.empty((0, 0, 0, 0))).shape
    net = VERSIONS.get(version_of_stem(window, filters))
    changes = changes_of(reader, layers, head, net, trunk_only)
    if changes:
        raise WeightsFileError(
            f"{path}: its network is not a SqueezeNet: {changes[0]}. Open it with Caffe, or give the file of a network "
            "without the change."
        )
    has_bypass = any(layer.type == "Eltwise" for layer in layers)
    return arrays, Hints(conv10_padding=padding, has_bypass=has_bypass, **_preparation(reader, layers))


def _read(
    path: str | os.PathLike, reader: WireReader, trunk_only: bool
) -> tuple[dict[str, np.ndarray], list[Layer], str, int | None]:
    """The arrays, all layers, the name of the layer that is conv10, and its padding."""
    blobs: dict[str, tuple[tuple[int, ...], np.ndarray]] = {}
    others: dict[str, dict[str, tuple[tuple[int, ...], np.ndarray]]] = {}
    layers, conv10 = [], "conv10"
    for number, wire_type, value in reader.fields(memoryview(read_bytes(path))):
        if number not in LAYERS or wire_type != BYTES:
            continue
        layer = read_layer(path, reader, value, LAYERS[number])
        layers.append(layer)
        name, ours = layer.name, layer_name(layer.name)
        if not layer.blobs:
            continue
        if name in others or f"{ours}/kernel" in blobs:
            raise WeightsFileError(f"{path}: layer {name!r:.80} occurs twice.")
        found = {part: _blob(path, reader, f"{ours or name}/{part}", blob, ours) for part, blob in layer.blobs.items()}
        if ours is None:
            others[name] = found
        else:
            conv10 = name if ours == "conv10" else conv10
            blobs |= {f"{ours}/{part}": blob for part, blob in found.items()}
    known = {name: hwio_shape(shape) for name, (shape, _) in blobs.items() if name.endswith("/kernel")}
    kernels = {name: _keras_shape(found["kernel"][0]) for name, found in others.items()}
    head = find_head(path, kernels, known, trunk_only)
    if head:
        blobs |= {f"conv10/{part}": blob for part, blob in others[head].items()}
    check_declared(path, {name: shape for name, (shape, _) in blobs.items()})
    arrays = {}
    for name, (shape, values) in blobs.items():
        if values.size != math.prod(shape):
            raise WeightsFileError(f"{path}: {name} of shape {list(shape)} has {values.size} values.")
        arrays[name] = hwio(values.reshape(shape))
    head = head or conv10
    padding = None if trunk_only else _padding(path, reader, layers, head)
    return float32_arrays(path, arrays), layers, head, padding


def _padding(path: str | os.PathLike, reader: WireReader, layers: list[Layer], head: str) -> int | None:
    """Rows and columns of zeros around the input of conv10; None without its ConvolutionParameter."""
    message = next((layer.parameters.get("Convolution") for layer in layers if layer.name == head), None)
    if message is None:
        return None
    sides = numbers_of(reader, message, CONVOLUTION)["pad"]
    if len(set(sides)) != 1 or sides[0] > MOST_PADDING:
        raise WeightsFileError(
            f"{path}: conv10 has the paddings {sides[:4]}, expected the same on all sides, at most {MOST_PADDING}."
        )
    return sides[0]


def _preparation(reader: WireReader, layers: list[Layer]) -> dict[str, object]:
    """The fields of `Hints` that follow from the layer that reads images, if there is one."""
    message = next(
        (layer.parameters["Transformation"] for layer in layers if "Transformation" in layer.parameters), None
    )
    if message is None:
        return {}
    numbers = numbers_of(reader, message, _TRANSFORMATION)
    size, scale, means = numbers["crop_size"][-1] or None, numbers["scale"][-1], numbers["mean_value"]
    if any(number == _MEAN_FILE for number, _, _ in reader.fields(message)):
        return {"input_size": size, "mean_file": True}
    # A difference of less than one level out of 255 does not matter.
    is_authors = scale == 1 and len(means) == 3 and np.allclose(means, BGR_MEANS["authors"], rtol=0, atol=1)
    text = f"mean_value={', '.join(f'{mean:g}' for mean in means[:4]) if any(means) else 'none'} and scale={scale:g}"
    return {"input_size": size, "other_colours": None if is_authors else text}


def _keras_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in Keras of a kernel (out, in, height, width), or of a dense layer's (out, in) or (1, 1, out, in)."""
    return hwio_shape(shape[2:] if len(shape) == 4 and shape[:2] == (1, 1) else shape)


def _blob(
    path: str | os.PathLike, reader: WireReader, name: str, blob: memoryview, ours: str | None
) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape (out, in, height, width) or (out,), and the values, still flat and not yet copied."""
    legacy, shape, values = [1, 1, 1, 1], None, None
    for number, wire_type, value in reader.fields(blob):
        if number in _LEGACY_SHAPE and wire_type == VARINT:
            legacy[_LEGACY_SHAPE[number]] = value
        elif number == 7 and wire_type == BYTES:
            shape = [
                dim
                for field, dim_type, dims in reader.fields(value)
                if field == 1
                for dim in reader.varints(dim_type, dims)
            ]
        elif number in _DATA:
            dtype = _DATA[number]
            if values is not None or wire_type != BYTES or len(value) % dtype.itemsize:
                raise WeightsFileError(f"{path}: {name} must have one packed list of floats; the file is damaged.")
            values = np.frombuffer(value, dtype)
    if values is None:
        raise WeightsFileError(f"{path}: {name} has no values.")
    if shape is None:
        # Caffe's older files give every blob four dimensions.
        shape = legacy[3:] if name.endswith("/bias") and legacy[:3] == [1, 1, 1] else legacy
    if ours:
        check_kernel_rank(path, name, shape)
    return tuple(shape), values
