"""A folder of NumPy arrays, one file for each weight, as in exports of Gluon's model zoo.

The files are `<anything>conv<N>_weight.npy` (OIHW) and `<anything>conv<N>_bias.npy`, where N counts the convolutions in
net order from 0.
"""

from __future__ import annotations

import io
import math
import os
import re
import tokenize

import numpy as np

from sqz_keras.weights.arrays import (
    WeightsFileError,
    check_declared,
    check_kernel_rank,
    file_size,
    float32_arrays,
    hwio,
    plain_net_layers,
    read_bytes,
    refuse,
)

_FILE = re.compile(r".*?conv(\d{1,4})_(weight|bias)\.(?i:npy)")
_PART = {"weight": "kernel", "bias": "bias"}
_MAX_HEADER_BYTES = 10_000
_HEADER_ERRORS = (
    ValueError,
    SyntaxError,
    tokenize.TokenError,
    EOFError,
    TypeError,
    RecursionError,
    MemoryError,
    OSError,
)


def read(path: str | os.PathLike, trunk_only: bool = False) -> dict[str, np.ndarray]:
    """Reads a folder of `.npy` files, or the folder `weights` in it.

    Returns:
        float32 arrays by name, kernels HWIO, in net order.

    Raises:
        WeightsFileError: a file is missing, damaged, too large, or has another name.
    """
    del trunk_only  # the last convolution is conv10
    folder = os.fspath(path)
    if not os.path.isdir(folder):
        raise WeightsFileError(f"{path}: expected a folder of .npy files.")
    if os.path.isdir(os.path.join(folder, "weights")):
        folder = os.path.join(folder, "weights")
    files = _files(folder)
    check_declared(path, {name: _declared_shape(file, name) for name, file in files.items()})
    arrays = {}
    for name, file in files.items():
        with refuse(file, ValueError, EOFError, OSError):
            array = np.load(io.BytesIO(read_bytes(file)), allow_pickle=False)
        arrays[name] = hwio(array)
    return float32_arrays(folder, arrays)


def _files(folder: str) -> dict[str, str]:
    """The file of each weight, by our names."""
    numbered = {}
    for name in sorted(name for name in os.listdir(folder) if name.lower().endswith(".npy")):
        match = _FILE.fullmatch(name)
        if match is None or (int(match[1]), match[2]) in numbered:
            raise WeightsFileError(
                f"{os.path.join(folder, name)}: expected one conv<N>_weight.npy and one conv<N>_bias.npy for each "
                "convolution N = 0, 1, ... in network order."
            )
        numbered[int(match[1]), match[2]] = os.path.join(folder, name)
    convolutions = len({number for number, _ in numbered})
    layers = plain_net_layers(folder, convolutions)
    missing = [f"conv{n}_{part}.npy" for n in range(convolutions) for part in _PART if (n, part) not in numbered]
    if missing:
        raise WeightsFileError(
            f"{folder}: {', '.join(missing[:4])} missing; convolutions are counted from 0 without gaps."
        )
    return {f"{layers[number]}/{_PART[part]}": file for (number, part), file in numbered.items()}


def _declared_shape(file: str, name: str) -> tuple[int, ...]:
    """The shape in a file's header, after a check that the file has exactly the bytes for it."""
    size = file_size(file)
    with refuse(file, *_HEADER_ERRORS), open(file, "rb") as stream:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise WeightsFileError(f"{file}: expected .npy format 1.0, got {version}.")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream, max_header_size=_MAX_HEADER_BYTES)
        values = size - stream.tell()
    if dtype.hasobject or dtype.kind != "f":
        raise WeightsFileError(f"{file}: expected floating point values, got {dtype}.")
    check_kernel_rank(file, name, shape)
    if values != math.prod(shape) * dtype.itemsize:
        raise WeightsFileError(f"{file}: shape {list(shape)} of {dtype} needs other than the {values} bytes it has.")
    return shape
