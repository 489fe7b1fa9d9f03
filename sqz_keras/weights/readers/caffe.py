"""Caffe's `.caffemodel`: a NetParameter message, of which the layers' names, types, blobs and paddings are read.

Fields of the public message layout (caffe.proto):
NetParameter: layers (V1LayerParameter) 2, layer (LayerParameter) 100.
LayerParameter: name 1, type (string) 2, blobs 7, convolution_param 106.
V1LayerParameter: name 4, type (enum) 5, blobs 6, convolution_param 10.
ConvolutionParameter: pad 3 (one, or one a side), pad_h 9, pad_w 10.
BlobProto: num 1, channels 2, height 3, width 4, data 5 (packed float), shape 7, double_data 8 (packed double).
BlobShape: dim 1.
"""

from __future__ import annotations

import dataclasses
import math
import os

import numpy as np

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
from sqz_keras.weights.readers.heads import find_head
from sqz_keras.weights.readers.wire import WireReader

# Field of NetParameter that holds layers -> the fields of name, type, blobs and convolution_param in such a layer.
_LAYERS = {2: (4, 5, 6, 10), 100: (1, 2, 7, 106)}
_ELTWISE = (b"Eltwise", 25)
_PAD, _PAD_H, _PAD_W = 3, 9, 10
_MOST_PADDING = 16  # of conv10; the released networks have 0 or 1
_LEGACY_SHAPE = {1: 0, 2: 1, 3: 2, 4: 3}
_DATA = {5: np.dtype("<f4"), 8: np.dtype("<f8")}


@dataclasses.dataclass(frozen=True)
class _Layer:
    """A layer as it lies in the file.

    Args:
        name: the file's own.
        type: a text in LayerParameter, a number in V1LayerParameter; None where it is left out.
        blobs: the BlobProtos of its kernel and bias; none for a layer without weights.
        convolution: its ConvolutionParameter, or None.
    """

    name: str
    type: bytes | int | None
    blobs: dict[str, memoryview]
    convolution: memoryview | None


def read(path: str | os.PathLike, trunk_only: bool = False) -> dict[str, np.ndarray]:
    """The arrays of `read_described`."""
    return read_described(path, trunk_only)[0]


def read_described(path: str | os.PathLike, trunk_only: bool = False) -> tuple[dict[str, np.ndarray], Hints]:
    """Reads the convolutions of a `.caffemodel`, and what its layers say of the network.

    Args:
        path: of the file.
        trunk_only: whether heads of other names than conv10, such as the "conv10-new" of a fine-tuned net, are left
            out.

    Returns:
        float32 arrays by name, kernels HWIO, in net order. The input's channels stay in the file's order (BGR in the
        authors' releases). And conv10's padding and whether there is a bypass, as far as the file says it.

    Raises:
        WeightsFileError: the file is damaged or too large, has weights that no SqueezeNet has, or pads the sides of
            conv10's input differently.
    """
    reader = WireReader(path)
    blobs: dict[str, tuple[tuple[int, ...], np.ndarray]] = {}
    others: dict[str, dict[str, tuple[tuple[int, ...], np.ndarray]]] = {}
    types, convolutions = set(), {}
    for number, wire_type, value in reader.fields(memoryview(read_bytes(path))):
        if number not in _LAYERS or wire_type != BYTES:
            continue
        layer = _layer(path, reader, value, _LAYERS[number])
        types.add(layer.type)
        name, ours = layer.name, layer_name(layer.name)
        if not layer.blobs:
            continue
        if name in others or f"{ours}/kernel" in blobs:
            raise WeightsFileError(f"{path}: layer {name!r:.80} occurs twice.")
        found = {part: _blob(path, reader, f"{ours or name}/{part}", blob, ours) for part, blob in layer.blobs.items()}
        convolutions[ours or name] = layer.convolution
        if ours is None:
            others[name] = found
        else:
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
        array = values.reshape(shape)
        arrays[name] = hwio(array)
    padding = None if trunk_only else _padding(path, reader, convolutions.get(head or "conv10"))
    has_bypass = any(kind in types for kind in _ELTWISE) if types != {None} else None
    return float32_arrays(path, arrays), Hints(conv10_padding=padding, has_bypass=has_bypass)


def _padding(path: str | os.PathLike, reader: WireReader, convolution: memoryview | None) -> int | None:
    """Rows and columns of zeros around the input of conv10; None without its ConvolutionParameter."""
    if convolution is None:
        return None
    pads = {_PAD: [], _PAD_H: [], _PAD_W: []}
    for number, wire_type, value in reader.fields(convolution):
        if number in pads:
            pads[number] += reader.varints(wire_type, value)
    sides = pads[_PAD] or [*(pads[_PAD_H] or [0]), *(pads[_PAD_W] or [0])]
    if len(set(sides)) != 1 or sides[0] > _MOST_PADDING:
        raise WeightsFileError(
            f"{path}: conv10 has the paddings {sides[:4]}, expected the same on all sides, at most {_MOST_PADDING}."
        )
    return sides[0]


def _keras_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in Keras of a kernel (out, in, height, width), or of a dense layer's (out, in) or (1, 1, out, in)."""
    return hwio_shape(shape[2:] if len(shape) == 4 and shape[:2] == (1, 1) else shape)


def _layer(path: str | os.PathLike, reader: WireReader, layer: memoryview, fields: tuple[int, ...]) -> _Layer:
    name_field, type_field, blobs_field, convolution_field = fields
    name, kind, blobs, convolution = "", None, [], None
    for number, wire_type, value in reader.fields(layer):
        if number == type_field:
            kind = value if wire_type == VARINT else bytes(value[:20])
        elif number == name_field and wire_type == BYTES:
            name = bytes(value[:200]).decode("utf-8", "replace")
        elif number == blobs_field and wire_type == BYTES:
            blobs.append(value)
        elif number == convolution_field and wire_type == BYTES:
            convolution = value
    if len(blobs) not in (0, 2):
        raise WeightsFileError(f"{path}: layer {name!r} must have a kernel and a bias, got {len(blobs)} blobs.")
    return _Layer(name, kind, dict(zip(("kernel", "bias"), blobs, strict=False)), convolution)


def _blob(
    path: str | os.PathLike, reader: WireReader, name: str, blob: memoryview, ours: str | None
) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape (out, in, height, width) or (out,), and the values, still unshaped and not yet copied."""
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
