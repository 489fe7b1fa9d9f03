"""Readers of weights files: each gives a dict of named float32 arrays, and none executes what a file says.

Each module has `read(path, trunk_only)`, and also `read_described` if its files say something about their model; the
arguments are those of the functions here.
"""

from __future__ import annotations

import importlib
import os
import re
import types

import numpy as np

from sqz_keras.weights.arrays import WeightsFileError, check_shapes
from sqz_keras.weights.description import Hints, Stated

__all__ = [
    "READERS",
    "TORCH_SUFFIXES",
    "WeightsFileError",
    "check_not_renamed",
    "check_shapes",
    "read_arrays",
    "read_described",
]

# Suffix, in lower case, or folder -> the module of sqz_keras.weights with its reader.
READERS = {
    ".sqz": "sqz",
    ".net": "readers.deep_compression",
    ".onnx": "readers.onnx_file",
    ".caffemodel": "readers.caffe",
    ".pth": "readers.torch_file",
    ".pt": "readers.torch_file",
    ".tar": "readers.torch_file",
    ".ckpt": "readers.torch_file",
    ".bin": "readers.torch_file",
    ".safetensors": "readers.safetensors_file",
    ".h5": "readers.keras_h5",
    ".keras": "readers.keras_h5",
    "folder with saved_model.pb": "readers.saved_model",
    "folder of .npy": "readers.npy_folder",
}
# How files of some kinds begin.
_STARTS = {
    ".sqz": rb"\x89SQZ",
    ".h5": rb"\x89HDF",
    ".keras": rb"PK.{28}(metadata|config)\.json",
    ".pth": rb"PK.{28}[^/]{1,80}/data\.pkl|\x80.\x8a\x0al\xfc\x9cF\xf9",
    ".safetensors": rb'.{8}\{"',
}
TORCH_SUFFIXES = [
    kind for kind, module in READERS.items() if module in ("readers.torch_file", "readers.safetensors_file")
]


def read_described(
    path: str | os.PathLike, trunk_only: bool = False
) -> tuple[dict[str, np.ndarray], Stated | Hints | None]:
    """The arrays of `read_arrays`, and what the file says about its model; None for a kind of file that cannot."""
    reader = _reader(path)
    if hasattr(reader, "read_described"):
        return reader.read_described(path, trunk_only)
    return reader.read(path, trunk_only), None


def read_arrays(path: str | os.PathLike, trunk_only: bool = False) -> dict[str, np.ndarray]:
    """Reads a weights file or folder of any known kind (see `READERS`).

    Args:
        path: a file, whose suffix tells its kind in upper or lower case, or a folder.
        trunk_only: whether heads that are not named conv10 are left out. Otherwise such a head is taken for conv10 if
            it is the only head, and refused if it is not.

    Returns:
        float32 arrays by name ("conv1/kernel", "conv1/bias", "fire2_squeeze1x1/kernel", ...) in net order; kernels are
        (height, width, in, out). `check_shapes` checks whether they fit a net.

    Raises:
        WeightsFileError: the kind is unknown, or the file is damaged, too large or not a SqueezeNet's.
    """
    return _reader(path).read(path, trunk_only)


def check_not_renamed(path: str | os.PathLike) -> None:
    """Refuses a file whose suffix does not name the kind of its content, if its first bytes tell the kind.

    Raises:
        WeightsFileError: The file is refused.
    """
    if not os.path.isfile(path):
        return
    kind = _kind(os.fspath(path))
    with open(path, "rb") as file:
        start = file.read(256)
    for actual, pattern in _STARTS.items():
        if READERS[actual] != READERS.get(kind) and re.match(pattern, start, re.DOTALL):
            raise WeightsFileError(f"{path}: by its content it is a {actual} file. Give it this suffix.")


def _reader(path: str | os.PathLike) -> types.ModuleType:
    """The module that reads a file or folder."""
    kind = _kind(os.fspath(path))
    if kind not in READERS:
        names = sorted(os.listdir(path)) if os.path.isdir(path) else ()
        inside = next((name for name in names if _kind(os.path.join(path, name)) in READERS), None)
        remedy = "Give the file that this one was made from, or export its model as .onnx; see docs/models.md"
        if os.path.isdir(path):
            remedy = f"One in this folder is {inside!r:.80}: give its path" if inside else "See docs/models.md"
        raise WeightsFileError(
            f"{path}: expected a file or folder of weights of a known kind ({', '.join(READERS)}). {remedy}."
        )
    return importlib.import_module(f"sqz_keras.weights.{READERS[kind]}")


def _kind(path: str) -> str | None:
    if not os.path.isdir(path):
        return os.path.splitext(path)[1].lower()
    if os.path.exists(os.path.join(path, "saved_model.pb")):
        return "folder with saved_model.pb"
    for folder in (path, os.path.join(path, "weights")):
        if os.path.isdir(folder) and any(name.lower().endswith(".npy") for name in os.listdir(folder)):
            return "folder of .npy"
    return None
