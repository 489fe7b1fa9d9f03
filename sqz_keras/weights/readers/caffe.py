"""Caffe's `.caffemodel`: a NetParameter message, of which only the layers' names and blobs are looked at.

Fields of the public message layout (caffe.proto):
NetParameter: layers (V1LayerParameter) 2, layer (LayerParameter) 100.
LayerParameter: name 1, blobs 7. V1LayerParameter: name 4, blobs 6.
BlobProto: num 1, channels 2, height 3, width 4, data 5 (packed float), shape 7, double_data 8 (packed double).
BlobShape: dim 1.
"""

from __future__ import annotations

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
    layer_name,
    read_bytes,
)
from sqz_keras.weights.readers.heads import find_head
from sqz_keras.weights.readers.wire import WireReader

# Field of NetParameter that holds layers -> the fields of name and blobs in such a layer.
_LAYERS = {2: (4, 6), 100: (1, 7)}
_LEGACY_SHAPE = {1: 0, 2: 1, 3: 2, 4: 3}
_DATA = {5: np.dtype("<f4"), 8: np.dtype("<f8")}


def read(path: str | os.PathLike, trunk_only: bool = False) -> dict[str, np.ndarray]:
    """Reads the convolutions of a `.caffemodel`.

    Args:
        path: of the file.
        trunk_only: whether heads of other names than conv10, such as the "conv10-new" of a fine-tuned net, are left
            out.

    Returns:
        float32 arrays by name, kernels HWIO, in net order. The input's channels stay in the file's order (BGR in the
        authors' releases).

    Raises:
        WeightsFileError: the file is damaged or too large, or has weights that no SqueezeNet has.
    """
    reader = WireReader(path)
    blobs: dict[str, tuple[tuple[int, ...], np.ndarray]] = {}
    others: dict[str, dict[str, tuple[tuple[int, ...], np.ndarray]]] = {}
    for number, wire_type, value in reader.fields(memoryview(read_bytes(path))):
        if number not in _LAYERS or wire_type != BYTES:
            continue
        name, layer_blobs = _layer(path, reader, value, *_LAYERS[number])
        ours = layer_name(name)
        if not layer_blobs:
            continue
        if name in others or f"{ours}/kernel" in blobs:
            raise WeightsFileError(f"{path}: layer {name!r:.80} occurs twice.")
        found = {part: _blob(path, reader, f"{ours or name}/{part}", blob, ours) for part, blob in layer_blobs.items()}
        if ours is None:
            others[name] = found
        else:
            blobs |= {f"{ours}/{part}": blob for part, blob in found.items()}
    known = {name: (*shape[2:], *shape[1::-1]) for name, (shape, _) in blobs.items() if name.endswith("/kernel")}
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
        arrays[name] = hwio(array) if array.ndim == 4 else array
    return float32_arrays(path, arrays)


def _keras_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in Keras of a kernel (out, in, height, width), or of a dense layer's (out, in) or (1, 1, out, in)."""
    if len(shape) == 4 and shape[:2] == (1, 1):
        shape = shape[2:]
    return (*shape[2:], *shape[1::-1]) if len(shape) in (2, 4) else shape


def _layer(
    path: str | os.PathLike, reader: WireReader, layer: memoryview, name_field: int, blobs_field: int
) -> tuple[str, dict[str, memoryview]]:
    """A layer's name, and the BlobProtos of its kernel and bias; none for a layer without weights."""
    name, blobs = "", []
    for number, wire_type, value in reader.fields(layer):
        if number == name_field and wire_type == BYTES:
            name = bytes(value[:200]).decode("utf-8", "replace")
        elif number == blobs_field and wire_type == BYTES:
            blobs.append(value)
    if len(blobs) not in (0, 2):
        raise WeightsFileError(f"{path}: layer {name!r} must have a kernel and a bias, got {len(blobs)} blobs.")
    return name, dict(zip(("kernel", "bias"), blobs, strict=False))


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
