"""torchvision's state dicts, `.pth` or `.pt`, zipped or in the older format; neither torch nor unpickling is needed.

torchvision's names: features.0 is conv1; features.N.squeeze, .expand1x1 and .expand3x3 are the fire modules, N
ascending; classifier.1 is conv10.
"""

from __future__ import annotations

import io
import os
import re

import numpy as np

from sqz_keras.weights.arrays import (
    WeightsFileError,
    check_declared,
    check_kernel_rank,
    file_size,
    float32_arrays,
    hwio,
    read_bytes,
)
from sqz_keras.weights.readers.archives import open_archive, read_member
from sqz_keras.weights.readers.state_pickle import Storage, Tensor, read_pickle

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
_MAX_PICKLE_BYTES = 1 << 20
_KEY = re.compile(
    r"features\.(\d{1,4})\.(?:(squeeze|expand1x1|expand3x3)\.)?(weight|bias)|classifier\.1\.(weight|bias)"
)
_PART = {"weight": "kernel", "bias": "bias"}


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads a state dict of torchvision's SqueezeNet.

    Returns:
        float32 arrays by name, kernels HWIO, in net order.

    Raises:
        WeightsFileError: the file is damaged or too large, holds anything but tensors, or has weights that no
            torchvision SqueezeNet has.
    """
    file_size(path)
    with open(path, "rb") as file:
        zipped = file.read(2) == b"PK"
    state, storages = (_read_zip if zipped else _read_legacy)(path)
    names = _names(path, state)
    check_declared(path, {names[key]: tensor.shape for key, tensor in state.items()})
    arrays = {}
    for key, tensor in state.items():
        check_kernel_rank(path, names[key], tensor.shape)
        array = _array(path, key, tensor, storages[tensor.storage.key])
        arrays[names[key]] = hwio(array) if array.ndim == 4 else array
    return float32_arrays(path, arrays)


def _read_zip(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, bytes]]:
    with open_archive(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise WeightsFileError(f"{path}: expected one folder with data.pkl in the archive, found {len(pickles)}.")
        folder = pickles[0].removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in archive.NameToInfo and read_member(path, archive, order, 16) != b"little":
            raise WeightsFileError(f"{path}: expected little-endian values; save the file on another machine.")
        pickled = io.BytesIO(read_member(path, archive, pickles[0], _MAX_PICKLE_BYTES))
        state, declared = _state_dict(path, read_pickle(path, pickled))
        storages = {
            key: read_member(path, archive, f"{folder}data/{key}", storage.size * storage.dtype.itemsize)
            for key, storage in declared.items()
        }
    return state, storages


def _read_legacy(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, bytes]]:
    stream = io.BytesIO(read_bytes(path))
    if read_pickle(path, stream) != _MAGIC_NUMBER or read_pickle(path, stream) != _PROTOCOL_VERSION:
        raise WeightsFileError(f"{path}: not a file of torch.save.")
    system = read_pickle(path, stream)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise WeightsFileError(f"{path}: expected little-endian values; save the file on another machine.")
    state, declared = _state_dict(path, read_pickle(path, stream))
    keys = read_pickle(path, stream)
    if not isinstance(keys, list) or any(type(key) is not str for key in keys) or sorted(keys) != sorted(declared):
        raise WeightsFileError(f"{path}: the list of storages does not fit the tensors; the file is damaged.")
    storages = {}
    for key in keys:
        size = int.from_bytes(stream.read(8), "little")
        if size != declared[key].size:
            raise WeightsFileError(f"{path}: a storage has {size} values, {declared[key].size} were declared.")
        storages[key] = stream.read(size * declared[key].dtype.itemsize)
    if stream.read(1):
        raise WeightsFileError(f"{path}: bytes are left behind the last storage; the file is damaged.")
    return state, storages


def _state_dict(path: str | os.PathLike, value: object) -> tuple[dict[str, Tensor], dict[str, Storage]]:
    """The tensors by torchvision's names, and their storages by key, none larger than what is read."""
    if not isinstance(value, dict) or not all(isinstance(tensor, Tensor) for tensor in value.values()):
        raise WeightsFileError(
            f"{path}: expected a state dict, i.e. tensors by name. From a training checkpoint, save its "
            "model.state_dict() alone."
        )
    storages: dict[str, Storage] = {}
    for tensor in value.values():
        if storages.setdefault(tensor.storage.key, tensor.storage) != tensor.storage:
            raise WeightsFileError(f"{path}: a storage is declared in two ways; the file is damaged.")
    check_declared(path, {f"storage {key:.20}": (storage.size,) for key, storage in storages.items()})
    return value, storages


def _names(path: str | os.PathLike, state: dict[str, Tensor]) -> dict[str, str]:
    """Our name of each weight in torchvision's state dict."""
    matches = {key: _KEY.fullmatch(str(key)) for key in state}
    for key, match in matches.items():
        if match is None or (match[1] is not None and (match[2] is None) != (match[1] == "0")):
            raise WeightsFileError(f"{path}: {key!r:.80} is not a weight of torchvision's SqueezeNet.")
    modules = sorted({int(match[1]) for match in matches.values() if match[2]})
    fire = {module: f"fire{number}" for number, module in enumerate(modules, start=2)}
    names = {}
    for key, match in matches.items():
        if match[1] is None:
            layer = "conv10"
        elif match[2] is None:
            layer = "conv1"
        else:
            layer = f"{fire[int(match[1])]}_{match[2] + '1x1' if match[2] == 'squeeze' else match[2]}"
        names[key] = f"{layer}/{_PART[match[3] or match[4]]}"
    if len(set(names.values())) != len(names):
        raise WeightsFileError(f"{path}: a weight is there twice.")
    return names


def _array(path: str | os.PathLike, key: str, tensor: Tensor, data: bytes) -> np.ndarray:
    """A tensor's values, in torch's layout."""
    storage = tensor.storage
    if len(data) != storage.size * storage.dtype.itemsize:
        raise WeightsFileError(f"{path}: {key} needs a storage of {storage.size} values, got {len(data)} bytes.")
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    if tensor.offset < 0 or min(tensor.strides) < 0 or last >= storage.size:
        raise WeightsFileError(f"{path}: {key} reaches to value {last} of {storage.size}; the file is damaged.")
    values = np.frombuffer(data, storage.dtype)[tensor.offset :]
    strides = [stride * storage.dtype.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(values, tensor.shape, strides, writeable=False)
