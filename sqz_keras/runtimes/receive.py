"""Turns a `.sqz` file that was sent, once `sqz.read_model` has read it, into the file of a runtime."""

from __future__ import annotations

import io
import os
import pathlib

import numpy as np

from sqz_keras import codec
from sqz_keras.files import check_writable, write_file
from sqz_keras.weights.sqz import SqzModel

SUFFIXES = (".tflite", ".onnx", ".npz", ".sqz")


def check_output(output: str | os.PathLike) -> None:
    """Refuses a file that cannot be written, or whose suffix is not one of `SUFFIXES`.

    Raises:
        ValueError: The file is refused.
    """
    if pathlib.Path(output).suffix.lower() not in SUFFIXES:
        raise ValueError(f"The output must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, got {output}.")
    check_writable(output)


def write_received(model: SqzModel, output: str | os.PathLike, *, float16: bool = False) -> int:
    """Writes a model that `sqz.read_model` has read and checked; the file appears whole or not at all.

    Args:
        model: The model.
        output: The file, whose suffix selects the format: `.tflite`; `.onnx`; `.npz` with the arrays by name, as
            `numpy.load` reads them; or `.sqz`, a whole file, which is the base of the next delta. If a whole file was
            sent, its bytes are written as they are.
        float16: Whether a `.tflite` has its kernels in float16.

    Returns:
        The number of bytes written.

    Raises:
        ValueError: The suffix is none of these, or the format cannot hold the model.
        OSError: The file cannot be written; what was there before is still there.
        ModuleNotFoundError: `flatbuffers` is not installed, which `.tflite` needs.
    """
    check_output(output)
    data = encode_received(model, output, float16=float16)
    write_file(output, data)
    return len(data)


def encode_received(model: SqzModel, output: str | os.PathLike, *, float16: bool = False) -> bytes:
    """What `write_received` writes, with its arguments and errors; call `check_output` first."""
    suffix = pathlib.Path(output).suffix.lower()
    if suffix == ".tflite":
        from sqz_keras.runtimes import litert_file

        return litert_file.convert(model.spec, model.arrays, float16=float16)
    if suffix == ".onnx":
        from sqz_keras.runtimes import onnx_file

        return onnx_file.convert(model.spec, model.arrays)
    if suffix == ".npz":
        file = io.BytesIO()
        np.savez(file, **model.arrays)
        return file.getvalue()
    if model.data is not None:  # encoded again, it could have other bytes, and then no delta would fit it
        return model.data
    return codec.encode(model.arrays, model.header, profile=model.profile)
