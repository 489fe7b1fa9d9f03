"""Keras's HDF5 files: `.weights.h5`, the one inside `.keras`, and the legacy `.h5` (also keras-squeezenet's).

Weights are found by their layer's name, an attribute that current versions of Keras 3 write into a `.weights.h5`. The
groups' own names ("conv2d_1") only give a class and a number, which do not say which layer is meant.

The HDF5 library runs in a process of its own (`h5_worker`): some damaged files make it crash or loop for ever.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Sequence

import numpy as np

from sqz_keras.architecture.spec import MAX_JSON_BYTES
from sqz_keras.extras import KERAS, require
from sqz_keras.weights.arrays import MAX_BYTES, WeightsFileError, float32_arrays, layer_name, read_bytes, refuse
from sqz_keras.weights.description import SPEC_NAME, Hints, Stated, parse_spec
from sqz_keras.weights.readers import keras_config
from sqz_keras.weights.readers.archives import open_archive, read_member
from sqz_keras.weights.readers.heads import find_head
from sqz_keras.weights.readers.theano_kernels import to_hwio

_WORKER = pathlib.Path(__file__).with_name("h5_worker.py")
_SECONDS = 60
_CONFIG = "config.json"  # in a .keras file
_ADDITION = re.compile(r"(.*[_/])?add(_\d+)?")  # the addition of a bypass
_MAGIC = b"\x89HDF\r\n\x1a\n"
_END_AT = {0: 40, 2: 28, 3: 28}  # superblock's version -> where it says the file's length


def read(path: str | os.PathLike, trunk_only: bool = False) -> dict[str, np.ndarray]:
    """The arrays of `read_described`, whatever the file says about its model."""
    return _read(path, trunk_only)[0]


def read_described(
    path: str | os.PathLike, trunk_only: bool = False
) -> tuple[dict[str, np.ndarray], Stated | Hints | None]:
    """Reads the convolutions of a Keras file, and what it says about its model; nothing is deserialised.

    Args:
        path: the file.
        trunk_only: whether heads that are not named conv10 are left out.

    Returns:
        float32 arrays by name, kernels HWIO, in net order; and what the file says about its model, by the first of
        these that it has: the ModelSpec that this project put into it; the model's config, this project's or
        another's; the names of all layers, in a legacy file. None for a `.weights.h5` that Keras wrote.

    Raises:
        WeightsFileError: the file is damaged or too large, points outside itself, does not name its layers, or has
            weights that no SqueezeNet has.
    """
    arrays, spec, config, names = _read(path, trunk_only)
    if spec is not None:
        return arrays, Stated(parse_spec(path, spec))
    if not config and names:
        # The absence of these two names tells nothing: an addition or a padding may have any name.
        has_bypass = any(map(_ADDITION.fullmatch, names)) or None
        return arrays, Hints(conv10_padding=1 if "conv10_pad" in names else None, has_bypass=has_bypass)
    with refuse(path, ValueError, RecursionError, TypeError, AttributeError, LookupError):
        return arrays, keras_config.describe(path, json.loads(config), trunk_only) if config else None


def _read(
    path: str | os.PathLike, trunk_only: bool
) -> tuple[dict[str, np.ndarray], str | bytes | None, str | bytes | None, list[str]]:
    """The arrays; this project's description and Keras's config as JSON, if any; and the layers' names, if any."""
    require("h5py", *KERAS)
    data, spec, config = read_bytes(path), None, None
    if data.startswith(b"PK"):
        with open_archive(path) as archive:
            data = read_member(path, archive, "model.weights.h5", MAX_BYTES)
            if SPEC_NAME in archive.NameToInfo:
                spec = read_member(path, archive, SPEC_NAME, MAX_JSON_BYTES)
            elif _CONFIG in archive.NameToInfo:
                config = read_member(path, archive, _CONFIG, MAX_JSON_BYTES)
    _check_end(path, data)
    replies = ask_worker([data])
    if not replies:
        raise WeightsFileError(f"{path}: the file is damaged: the HDF5 library failed on it. Fetch or save it again.")
    reply, values = _parsed(path, replies[0])
    arrays = float32_arrays(path, _named(path, reply, values, trunk_only))
    return arrays, spec or reply["model_spec"], config or reply["model_config"], reply["names"]


def _parsed(path: str | os.PathLike, reply: bytes) -> tuple[dict, bytes]:
    """The worker's JSON, and the bytes of the arrays."""
    line, _, values = reply.partition(b"\n")
    header = json.loads(line)
    if "error" in header:
        raise WeightsFileError(f"{path}: {header['error']}.")
    return header, values


def ask_worker(files: Sequence[bytes]) -> list[bytes]:
    """The worker's reply for each file, up to the first file on which it crashes or hangs."""
    # The worker imports numpy and h5py from where this process does, and nothing from its own folder.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    process = subprocess.Popen(
        [sys.executable, "-P", os.fspath(_WORKER), str(MAX_BYTES)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    framed = b"".join(len(file).to_bytes(8, "little") + file for file in files)
    with process:
        try:
            output, _ = process.communicate(framed, timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
    replies, at = [], 0
    while len(output) - at >= 8:
        size = int.from_bytes(output[at : at + 8], "little")
        if size > len(output) - at - 8:
            break
        replies.append(output[at + 8 : at + 8 + size])
        at += 8 + size
    return replies


def _check_end(path: str | os.PathLike, data: bytes) -> None:
    """Compares the length with what the superblock says; HDF5 itself ignores bytes after the end."""
    at = _END_AT.get(data[8]) if data.startswith(_MAGIC) and len(data) > 64 else None
    if at is None:
        raise WeightsFileError(f"{path}: expected an HDF5 file, or a .keras file with one in it.")
    end = int.from_bytes(data[at : at + 8], "little")
    if end != len(data):
        raise WeightsFileError(f"{path}: expected {end} bytes by its header, got {len(data)}. Fetch or save it again.")


def _named(path: str | os.PathLike, header: dict, values: bytes, trunk_only: bool) -> dict[str, np.ndarray]:
    """The worker's arrays by our names."""
    layers, others, at = {}, {}, 0
    for name, items in header["layers"]:
        layer = layer_name(name)
        place, key = (others, name) if layer is None else (layers, layer)
        if key in place:
            raise WeightsFileError(f"{path}: layer {name!r:.80} occurs twice.")
        if layer and len(items) != 2:
            raise WeightsFileError(f"{path}: {layer} must have a kernel and a bias, got {len(items)} weights.")
        place[key] = []
        for dtype, shape in items:
            place[key].append(np.frombuffer(values, dtype, math.prod(shape), at).reshape(shape))
            at += place[key][-1].nbytes
    turned = to_hwio(path, layers | others, header["backend"])
    layers, others = {layer: turned[layer] for layer in layers}, {name: turned[name] for name in others}
    shapes = {f"{layer}/kernel": arrays[0].shape for layer, arrays in layers.items()}
    head = find_head(path, {name: arrays[0].shape for name, arrays in others.items()}, shapes, trunk_only)
    if head:
        layers["conv10"] = others[head]
    return {
        f"{layer}/{part}": array
        for layer, arrays in layers.items()
        for part, array in zip(("kernel", "bias"), arrays, strict=False)
    }
