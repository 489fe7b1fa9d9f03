"""torchvision's state dicts, `.pth` or `.pt`, zipped or in the older format; neither torch nor unpickling is needed.

The state dict may be in a training checkpoint, beside the epoch, the optimizer's state and other values.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable

import numpy as np

from sqz_keras.weights.arrays import WeightsFileError, check_declared, decode_floats, file_size, read_bytes
from sqz_keras.weights.readers.archives import open_archive, read_member
from sqz_keras.weights.readers.state_pickle import SAVE_STATE_DICT, Storage, Tensor, read_checkpoint, read_pickle
from sqz_keras.weights.readers.torch_names import bare, is_counter, name_weights, read_weights

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
_PICKLE = b"\x80"  # the first byte of a pickle of protocol 2 or later, torch.save's lowest
_MAX_PICKLE_BYTES = 1 << 20
_MAX_NESTED = 8  # dicts in dicts
_STATE_DICTS = ("state_dict", "model_state_dict", "model_state", "model", "net")  # keys for it in training scripts


def read(path: str | os.PathLike, trunk_only: bool = False) -> dict[str, np.ndarray]:
    """Reads a state dict of torchvision's SqueezeNet, or the one in a checkpoint.

    Args:
        path: the file.
        trunk_only: whether heads that are not named classifier.1 are left out.

    Returns:
        float32 arrays by name, kernels HWIO, in net order.

    Raises:
        WeightsFileError: the file is damaged or too large, has no state dict or several, or has weights that no
            torchvision SqueezeNet has.
    """
    file_size(path)
    with open(path, "rb") as file:
        zipped = file.read(2) == b"PK"
    state, storages = (_read_zip if zipped else _read_legacy)(path)
    state = {key: tensor for key, tensor in state.items() if not is_counter(tensor.shape, tensor.storage.dtype)}
    names = name_weights(path, {key: tensor.shape for key, tensor in state.items()}, trunk_only)
    check_declared(path, {name: state[key].shape for key, name in names.items()})
    return read_weights(path, names, lambda key: _array(path, key, state[key], storages[state[key].storage.key]))


def _read_zip(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, bytes]]:
    with open_archive(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise WeightsFileError(
                f"{path}: expected one folder with data.pkl in the archive, got {len(pickles)}. If it is an archive of "
                "other files, unpack it."
            )
        folder = pickles[0].removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in archive.NameToInfo and read_member(path, archive, order, 16) != b"little":
            raise WeightsFileError(f"{path}: expected little-endian values; save the file on another machine.")
        size = archive.getinfo(pickles[0]).file_size
        if size > _MAX_PICKLE_BYTES:
            raise WeightsFileError(
                f"{path}: {pickles[0]} has {size} bytes, and that of a state dict at most {_MAX_PICKLE_BYTES}. Save it "
                f"alone: {SAVE_STATE_DICT}"
            )
        pickled = io.BytesIO(read_member(path, archive, pickles[0], _MAX_PICKLE_BYTES))
        state, needed = _state_dict(path, read_pickle(path, pickled))
        storages = {
            key: read_member(path, archive, f"{folder}data/{key}", storage.bytes) for key, storage in needed.items()
        }
    return state, storages


def _read_legacy(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, bytes]]:
    data = read_bytes(path)
    stream, end = io.BytesIO(data), len(data)
    is_pickle = data.startswith(_PICKLE)  # otherwise it is another program's, such as OpenVINO's .bin, not damaged
    if not is_pickle or read_pickle(path, stream) != _MAGIC_NUMBER or read_pickle(path, stream) != _PROTOCOL_VERSION:
        raise WeightsFileError(
            f"{path}: not a file that torch.save wrote. If its model is one of PyTorch, save it again: "
            f"{SAVE_STATE_DICT}; if it is one of another program, export it as .onnx."
        )
    system = read_pickle(path, stream)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise WeightsFileError(f"{path}: expected little-endian values; save the file on another machine.")
    value, declared = read_checkpoint(path, stream)
    state, needed = _state_dict(path, value)
    keys = read_pickle(path, stream)
    if not isinstance(keys, list) or any(type(key) is not str for key in keys) or sorted(keys) != sorted(declared):
        raise WeightsFileError(f"{path}: the list of storages does not fit the tensors; the file is damaged.")
    storages = {}
    for key in keys:
        size = int.from_bytes(stream.read(8), "little")
        if size != declared[key].size:
            raise WeightsFileError(f"{path}: a storage has {size} values, {declared[key].size} were declared.")
        if declared[key].bytes > end - stream.tell():
            raise WeightsFileError(f"{path}: ends inside a storage; the file is truncated. Fetch it again.")
        if key in needed:
            storages[key] = stream.read(declared[key].bytes)
        else:
            stream.seek(declared[key].bytes, io.SEEK_CUR)
    if stream.read(1):
        raise WeightsFileError(f"{path}: bytes are left after the last storage; the file is damaged.")
    return state, storages


def _state_dict(path: str | os.PathLike, value: object) -> tuple[dict[str, Tensor], dict[str, Storage]]:
    """The tensors by torchvision's names, and their storages by key, all within the limits."""
    state = _find_state_dict(path, value)
    storages = {tensor.storage.key: tensor.storage for tensor in state.values()}
    check_declared(path, {f"storage {key:.20}": (storage.size,) for key, storage in storages.items()})
    return state, storages


def _find_state_dict(path: str | os.PathLike, value: object) -> dict[str, Tensor]:
    if _holds_tensors(value, all):
        return value
    if isinstance(value, dict):
        found = [key for key in _STATE_DICTS if _holds_tensors(value.get(key), any)]
        places = [(key,) for key in found]
        lists = []  # places of averages without names, which cannot be saved alone
        if len(found) == 1:
            twins, lists = _twins(value, found[0])
            places += twins
        if len(places) + len(lists) > 1:
            names = ", ".join(".".join(keys) for keys in [*places, *lists])
            last = "".join(f'["{key}"]' for key in places[-1])
            raise WeightsFileError(
                f"{path}: holds several state dicts, {names}. Save the one that is meant, such as: "
                f'torch.save(torch.load("{os.path.basename(path)}"){last}, "weights.pth")'
            )
        if found and _holds_tensors(value[found[0]], all):
            return value[found[0]]
    raise WeightsFileError(
        f"{path}: expected a state dict, i.e. tensors by name, or a checkpoint that has one as {_STATE_DICTS[0]!r} or "
        f"{_STATE_DICTS[1]!r}. Save it alone: {SAVE_STATE_DICT}"
    )


def _twins(checkpoint: dict, key: str) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Where else a checkpoint has weights like those of `key`: averages (EMA), the best epoch's, a teacher's.

    Returns:
        The places of dicts whose tensors have the names of all weights, or their shapes in the same order; and the
        places of lists whose items have these shapes in the same order.
    """
    weights = {bare(str(name)): shape for name, shape in _shapes(checkpoint[key]).items()}
    names, shapes = weights.keys(), list(weights.values())
    dicts, lists, left, seen = [], [], [((other,), value) for other, value in checkpoint.items()], {id(checkpoint[key])}
    while left:
        keys, value = left.pop()
        if not isinstance(value, dict | list) or id(value) in seen or len(keys) > _MAX_NESTED:
            continue
        seen.add(id(value))  # a hostile file may have one dict in a million places
        if isinstance(value, dict):
            twins = _shapes(value)
            if shapes and (names <= {bare(str(name)) for name in twins} or shapes == list(twins.values())):
                dicts.append(tuple(f"{key!s:.40}" for key in keys))
            left += [((*keys, name), item) for name, item in value.items()]
        elif shapes and [getattr(item, "shape", None) for item in value] == shapes:
            lists.append(tuple(f"{key!s:.40}" for key in keys))
    return sorted(dicts), sorted(lists)


def _shapes(values: dict) -> dict[object, tuple[int, ...]]:
    """The shapes of the tensors in a dict, without single values, such as counters."""
    return {name: item.shape for name, item in values.items() if isinstance(item, Tensor) and item.shape}


def _holds_tensors(value: object, which: Callable[[Iterable[bool]], bool]) -> bool:
    """Whether a value is a dict that is not empty, and any or all (`which`) of its values are tensors."""
    return isinstance(value, dict) and bool(value) and which(isinstance(item, Tensor) for item in value.values())


def _array(path: str | os.PathLike, key: str, tensor: Tensor, data: bytes) -> np.ndarray:
    """A tensor's values, in torch's layout."""
    storage = tensor.storage
    if len(data) != storage.bytes:
        raise WeightsFileError(f"{path}: {key} needs a storage of {storage.size} values, got {len(data)} bytes.")
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    if tensor.offset < 0 or min(tensor.strides, default=0) < 0 or last >= storage.size:
        raise WeightsFileError(f"{path}: {key} reaches to value {last} of {storage.size}; the file is damaged.")
    values = decode_floats(data, storage.dtype)[tensor.offset :]
    strides = [stride * values.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(values, tensor.shape, strides, writeable=False)
