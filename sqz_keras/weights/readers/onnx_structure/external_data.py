"""The values that an ONNX file keeps in other files, as PyTorch's exporter writes them: `net.onnx.data`."""

from __future__ import annotations

import os
import typing
from collections.abc import Iterator, Mapping

from sqz_keras.weights.arrays import MAX_BYTES, WeightsFileError, file_size

if typing.TYPE_CHECKING:
    import onnx

_EXTERNAL = 1  # TensorProto.EXTERNAL
_NUMBERS = ("offset", "length")


def take_in(path: str | os.PathLike, graph: onnx.GraphProto) -> None:
    """Puts the values that are kept in other files into the graph's tensors.

    Only files beside the model are opened, so that a model cannot name just any file of the machine; a link must lead
    to the folder that the model itself is in. In all, at most `MAX_BYTES` are read.

    Args:
        path: The ONNX file.
        graph: Its graph, which is changed.

    Raises:
        WeightsFileError: A file is missing, not beside the model, or shorter than the model says; or a tensor's entry
            is malformed.
        OSError: A file cannot be read.
    """
    left = MAX_BYTES
    for tensor in _tensors(graph):
        if tensor.data_location == _EXTERNAL:
            tensor.raw_data = _read(path, tensor.name, _entries(path, tensor), left)
            left -= len(tensor.raw_data)
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    yield from (attribute.t for node in graph.node for attribute in node.attribute if attribute.HasField("t"))


def _entries(path: str | os.PathLike, tensor: onnx.TensorProto) -> dict[str, str]:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    numbers = [entries[key] for key in _NUMBERS if key in entries]
    are_numbers = all(number.isascii() and number.isdecimal() and len(number) < 20 for number in numbers)
    if len(entries) < len(tensor.external_data) or not entries.get("location") or not are_numbers:
        raise WeightsFileError(f"{path}: the place of {tensor.name!r:.80} in another file is malformed.")
    return entries


def _read(path: str | os.PathLike, name: str, entries: Mapping[str, str], left: int) -> bytes:
    location, offset = entries["location"], int(entries.get("offset", 0))
    kept = f"{path}: {name!r:.80} is kept in the file {location!r:.80}"
    remedy = 'or save the model with its weights inside: onnx.save(onnx.load("model.onnx"), "whole.onnx")'
    beside = os.path.join(os.path.dirname(path), location)
    is_there = os.path.basename(location) == location and os.path.isfile(beside)
    if not is_there or _real_folder(beside) != _real_folder(path):
        raise WeightsFileError(f"{kept}, which is not beside the model. Put it there, {remedy}")
    size = file_size(beside)
    length = int(entries.get("length", max(size - offset, 0)))
    if length > left:
        raise WeightsFileError(f"{path}: its other files hold too much; at most {MAX_BYTES} bytes of them are read.")
    if offset + length > size:
        raise WeightsFileError(f"{kept}, which ends before it does. Copy both files again, {remedy}")
    with open(beside, "rb") as file:
        file.seek(offset)
        return file.read(length)


def _real_folder(path: str | os.PathLike) -> str:
    return os.path.dirname(os.path.realpath(path))
