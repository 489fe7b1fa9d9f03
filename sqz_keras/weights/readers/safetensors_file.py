"""torchvision's state dicts as `.safetensors`; the package of that name is not needed.

Layout: the length of the header, 8 bytes, little-endian; the header, a JSON object with the dtype, the shape and the
data_offsets (begin, end) of each tensor by its name, and perhaps text in "__metadata__"; the values, little-endian,
without gaps.
"""

from __future__ import annotations

import json
import math
import os

import numpy as np

from sqz_keras.files import distinct_keys
from sqz_keras.weights.arrays import WeightsFileError, check_declared, decode_floats, read_bytes, refuse
from sqz_keras.weights.readers.torch_names import is_counter, name_weights, read_weights

_MAX_HEADER_BYTES = 1 << 20
_DTYPES = {"F16": ("float16", 2), "BF16": ("bfloat16", 2), "F32": ("float32", 4), "F64": ("float64", 8)}
_COUNTERS = {"I64": ("int64", 8), "I32": ("int32", 4)}


def read(path: str | os.PathLike, trunk_only: bool = False) -> dict[str, np.ndarray]:
    """Reads a `.safetensors` file with the weights of torchvision's SqueezeNet.

    Args:
        path: the file.
        trunk_only: whether heads that are not named classifier.1 are left out.

    Returns:
        float32 arrays by name, kernels HWIO, in net order.

    Raises:
        WeightsFileError: the file is damaged or too large, or has weights that no torchvision SqueezeNet has.
    """
    data = read_bytes(path)
    tensors, start = _header(path, data)
    tensors = {name: tensor for name, tensor in tensors.items() if not is_counter(tensor[1], tensor[0])}

    def values(key: str) -> np.ndarray:
        dtype, shape, (begin, end) = tensors[key]
        return decode_floats(data[start + begin : start + end], dtype).reshape(shape)

    names = name_weights(path, {key: shape for key, (_, shape, _) in tensors.items()}, trunk_only)
    return read_weights(path, names, values)


def _header(path: str | os.PathLike, data: bytes) -> tuple[dict[str, tuple], int]:
    """(dtype, shape, offsets) by name, all checked, and where the values start."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(_MAX_HEADER_BYTES, len(data) - 8):
        raise WeightsFileError(
            f"{path}: expected a header of at most {_MAX_HEADER_BYTES} bytes followed by the values; the file is "
            "truncated, or not of the kind that its name says."
        )
    with refuse(path, ValueError, RecursionError):
        header = json.loads(data[8 : 8 + size].decode("utf-8"), object_pairs_hook=distinct_keys)
    if not isinstance(header, dict):
        raise WeightsFileError(f"{path}: its header must be a JSON object; the file is damaged.")
    header.pop("__metadata__", None)
    tensors = {name: _entry(path, name, entry) for name, entry in header.items()}
    check_declared(path, {f"{name:.80}": shape for name, (_, shape, _) in tensors.items()})
    at = 0
    for begin, end in sorted(offsets for _, _, offsets in tensors.values()):
        if begin != at:
            raise WeightsFileError(f"{path}: its tensors overlap or have gaps between them; the file is damaged.")
        at = end
    if at != len(data) - 8 - size:
        raise WeightsFileError(
            f"{path}: {len(data) - 8 - size} bytes of values, but its tensors need {at}. Fetch or save it again."
        )
    return tensors, 8 + size


def _entry(path: str | os.PathLike, name: str, entry: object) -> tuple[str, list[int], tuple[int, int]]:
    """One tensor's dtype, shape and offsets, which span exactly the bytes that its shape needs."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise WeightsFileError(
            f"{path}: {name!r:.80} must have a dtype, a shape and data_offsets; the file is damaged."
        )
    shape, offsets = entry["shape"], entry["data_offsets"]
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or any(type(number) is not int for number in numbers):
            raise WeightsFileError(f"{path}: {name!r:.80} has a malformed shape or offsets; the file is damaged.")
    dtypes = _DTYPES if shape else _DTYPES | _COUNTERS
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in dtypes:
        raise WeightsFileError(
            f"{path}: {name!r:.80} must be one of {', '.join(_DTYPES)}, got {entry['dtype']!r:.40}; quantised models "
            "are not read, so save the float model."
        )
    dtype, itemsize = dtypes[entry["dtype"]]
    # The rank first: a product of many large numbers takes time.
    well_formed = len(shape) <= 8 and len(offsets) == 2 and min(shape, default=1) >= 1
    if not well_formed or offsets[1] - offsets[0] != itemsize * math.prod(shape):
        raise WeightsFileError(f"{path}: {name!r:.80} of shape {shape[:9]} does not fit its offsets {offsets[:3]}.")
    return dtype, shape, (offsets[0], offsets[1])
