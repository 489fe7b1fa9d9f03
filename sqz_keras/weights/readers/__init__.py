"""Readers of weights files: each gives a dict of named float32 arrays, and none executes what a file says."""

from __future__ import annotations

import importlib
import os
import types

import numpy as np

from sqz_keras.weights.arrays import WeightsFileError, check_shapes
from sqz_keras.weights.description import Stated

__all__ = ["READERS", "WeightsFileError", "check_shapes", "read_arrays", "read_described"]

# Suffix or folder -> the module of sqz_keras.weights with its reader, and what the kind is called.
READERS = {
    ".sqz": ("sqz", "this project's compressed model"),
    ".net": ("readers.deep_compression", "Deep Compression's compressed SqueezeNet v1.0"),
    ".onnx": ("readers.onnx_file", "ONNX"),
    ".caffemodel": ("readers.caffe", "Caffe"),
    ".pth": ("readers.torch_file", "torchvision state dict"),
    ".pt": ("readers.torch_file", "torchvision state dict"),
    ".h5": ("readers.keras_h5", "Keras weights, .weights.h5 or legacy .h5"),
    ".keras": ("readers.keras_h5", "Keras model"),
    "folder with saved_model.pb": ("readers.saved_model", "SavedModel of this project"),
    "folder of .npy": ("readers.npy_folder", "NumPy arrays, a file a weight"),
}


def read_described(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], Stated | None]:
    """The arrays of `read_arrays`, and what the file says of its model, which some kinds of files cannot."""
    reader = _reader(path)
    return reader.read_described(path) if hasattr(reader, "read_described") else (reader.read(path), None)


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads a weights file or folder of any known kind (see `READERS`).

    Args:
        path: a file, whose suffix tells its kind, or a folder.

    Returns:
        float32 arrays by name ("conv1/kernel", "conv1/bias", "fire2_squeeze1x1/kernel", ...) in net order; kernels are
        (height, width, in, out). Whether they fit a net is checked by `check_shapes`.

    Raises:
        WeightsFileError: the kind is unknown, or the file is damaged, too large or not a SqueezeNet's.
    """
    return _reader(path).read(path)


def _reader(path: str | os.PathLike) -> types.ModuleType:
    kind = _kind(os.fspath(path))
    if kind not in READERS:
        kinds = "\n".join(f"  {key}: {title}" for key, (_, title) in READERS.items())
        raise WeightsFileError(f"{path}: expected a weights file or folder of a known kind. These are read:\n{kinds}")
    return importlib.import_module(f"sqz_keras.weights.{READERS[kind][0]}")


def _kind(path: str) -> str | None:
    if not os.path.isdir(path):
        return os.path.splitext(path)[1].lower()
    if os.path.exists(os.path.join(path, "saved_model.pb")):
        return "folder with saved_model.pb"
    for folder in (path, os.path.join(path, "weights")):
        if os.path.isdir(folder) and any(name.endswith(".npy") for name in os.listdir(folder)):
            return "folder of .npy"
    return None
