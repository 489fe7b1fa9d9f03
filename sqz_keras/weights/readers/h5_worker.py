"""Reads the layers of Keras's HDF5 files, in a process of its own: the HDF5 library crashes on some damaged files.

`keras_h5` runs it as a script; it needs only numpy and h5py. Standard input holds files, each after its length in 8
bytes (little-endian). Standard output gets a reply for each, framed in the same way: a line of JSON, then the arrays'
bytes. The JSON is {"error": text} or {"layers": [[name, [[dtype, shape], ...]], ...], "names": [text, ...], "backend":
text or null, "model_config": JSON or null, "model_spec": JSON or null}. The JSON of the last two is text, as it is in
the file; "names" also has the layers without weights, which only a legacy file lists.
"""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Iterator

import h5py
import numpy as np

_MAX_GROUPS, _MAX_DEPTH, _MAX_ATTRIBUTE_BYTES = 10_000, 16, 1 << 20
_MAX_ADDRESS_SPACE = 4 << 30
_SPEC = "model_spec"  # `sqz_keras.weights.description.SPEC_KEY`, which this process cannot import
_NOT_WEIGHTS = frozenset(("optimizer", "metrics", "seed_generator", _SPEC))
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError, OverflowError, MemoryError, SystemError)


class RefusedError(Exception):
    """Why a file is not read."""


def main() -> None:
    """Answers files until the input ends."""
    _limit_memory()
    max_bytes = int(sys.argv[1])
    while header := sys.stdin.buffer.read(8):
        reply = answer(sys.stdin.buffer.read(int.from_bytes(header, "little")), max_bytes)
        sys.stdout.buffer.write(len(reply).to_bytes(8, "little") + reply)
        sys.stdout.buffer.flush()


def answer(data: bytes, max_bytes: int) -> bytes:
    """The reply for one file; arrays of more than `max_bytes` in all are refused."""
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            root = get(file, "model_weights") if "model_weights" in file else file
            legacy = "layer_names" in root.attrs
            names = strings(root, "layer_names") if legacy else []
            layers = list(legacy_layers(root) if legacy else keras3_layers(file))
            total = sum(_checked_bytes(dataset) for _, datasets in layers for dataset in datasets)
            if total > max_bytes:
                raise RefusedError(f"its arrays would fill {total} bytes; at most {max_bytes} are read")
            arrays = [(name, [_values(dataset) for dataset in datasets]) for name, datasets in layers]
            # The JSON of the model's config, which a legacy file has.
            config = strings(file, "model_config")[0] if "model_config" in file.attrs else None
            spec = _model_spec(file)
            # Files of Keras 3 do not name their backend, and none of them was ever written on Theano.
            backend = strings(root, "backend")[0] if "backend" in root.attrs else None if legacy else "Keras 3's"
    except RefusedError as error:
        return json.dumps({"error": str(error)}).encode() + b"\n"
    except _DAMAGE as error:
        return json.dumps({"error": f"the file is damaged ({type(error).__name__}: {error!s:.200})"}).encode() + b"\n"
    layers = [[name, [[array.dtype.str, array.shape] for array in items]] for name, items in arrays]
    reply = {"layers": layers, "names": names, "backend": backend, "model_config": config, "model_spec": spec}
    return json.dumps(reply).encode() + b"\n" + b"".join(array.tobytes() for _, items in arrays for array in items)


def keras3_layers(file: h5py.File) -> Iterator[tuple[str, list[h5py.Dataset]]]:
    """Layers of a Keras 3 file: a group `vars` holds a layer's variables as "0", "1", and its name as an attribute."""
    groups, seen = [(file, 0)], 0
    while groups:
        group, depth = groups.pop()
        seen += 1
        if seen > _MAX_GROUPS or depth > _MAX_DEPTH:
            raise RefusedError("too many nested groups; this is not a Keras file")
        for key in group:
            if key in _NOT_WEIGHTS:
                continue
            item = get(group, key)
            if isinstance(item, h5py.Dataset):
                raise RefusedError(f"{item.name} is outside a group 'vars'; this is not a Keras file")
            if key != "vars":
                groups.append((item, depth + 1))
            elif len(item):
                yield _layer_name(item), [get(item, name) for name in sorted(item)]


def legacy_layers(root: h5py.Group) -> Iterator[tuple[str, list[h5py.Dataset]]]:
    """Layers of a legacy file: attributes list the layers and, in each layer's group, its weights.

    A model inside the model is listed as one layer; the names of its weights begin with those of its layers.
    """
    for name in strings(root, "layer_names"):
        group = get(root, name)
        layers: dict[str, list] = {}
        for weight in strings(group, "weight_names"):
            layers.setdefault(weight.rpartition("/")[0], []).append(get(group, weight))
        yield from layers.items() if len(layers) > 1 else ((name, weights) for weights in layers.values())


def _model_spec(file: h5py.File) -> str | None:
    """The JSON of the ModelSpec, which files of this project have."""
    if _SPEC not in file:
        return None
    dataset = get(file, _SPEC)
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype != np.uint8 or len(dataset.shape or ()) != 1:
        raise RefusedError(f"{_SPEC} is not an array of bytes")
    if not 0 < dataset.shape[0] <= _MAX_ATTRIBUTE_BYTES or not _is_plain(dataset):
        raise RefusedError(f"{_SPEC} is empty, too large, or not stored in the file itself")
    return dataset[()].tobytes().decode("utf-8", "replace")


def get(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    """An item by its name, which may contain "/"; links that could lead out of the file are refused."""
    for part in name.split("/"):
        if not isinstance(group, h5py.Group) or not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise RefusedError(f"{name!r:.80} is missing or a link; only plain HDF5 files are read")
        group = group[part]
    return group


def strings(group: h5py.Group, name: str) -> list[str]:
    """The strings of an attribute that holds one or a list of them."""
    if name not in group.attrs:
        raise RefusedError(f"{group.name} lacks the attribute {name!r}; this is not a Keras file")
    attribute = group.attrs.get_id(name)
    if math.prod(attribute.shape) * max(attribute.dtype.itemsize, 1) > _MAX_ATTRIBUTE_BYTES:
        raise RefusedError(f"the attribute {name!r} of {group.name} is too large")
    values = np.atleast_1d(group.attrs[name]).ravel()
    texts = [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values]
    if not all(isinstance(text, str) for text in texts):
        raise RefusedError(f"the attribute {name!r} of {group.name} must be text")
    return texts


def _layer_name(variables: h5py.Group) -> str:
    if "name" not in variables.attrs:
        raise RefusedError(
            f"does not say which layer {variables.name} belongs to. Load it into its model with the Keras that "
            "wrote it and save it again with a newer Keras 3, or as a legacy .h5 file"
        )
    (name,) = strings(variables, "name")
    return name


def _checked_bytes(dataset: object) -> int:
    """A dataset's bytes as float32; refuses values that are not plain numbers inside the file."""
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        raise RefusedError(f"{getattr(dataset, 'name', dataset)} is not an array")
    if (dataset.dtype.kind != "f" or dataset.dtype.itemsize not in (2, 4, 8)) and not _is_bfloat16(dataset):
        raise RefusedError(f"{dataset.name} must be float16, bfloat16, float32 or float64, got {dataset.dtype}")
    if not _is_plain(dataset):
        raise RefusedError(
            f"{dataset.name} must be stored in the file itself, uncompressed and unchunked, as Keras writes it"
        )
    return 4 * math.prod(dataset.shape)


def _is_bfloat16(dataset: h5py.Dataset) -> bool:
    """Whether values are bfloat16. HDF5 lacks this type: Keras writes two bytes a value, and an attribute names it."""
    return dataset.dtype == np.dtype("V2") and "dtype" in dataset.attrs and strings(dataset, "dtype") == ["bfloat16"]


def _values(dataset: h5py.Dataset) -> np.ndarray:
    values = dataset[()]
    if not _is_bfloat16(dataset):
        return values
    halves = np.frombuffer(values.tobytes(), "<u2").astype(np.uint32)  # the upper halves of float32
    return (halves << 16).view(np.float32).reshape(values.shape)


def _is_plain(dataset: h5py.Dataset) -> bool:
    """Whether all values of a dataset are in the file, uncompressed and unchunked."""
    properties = dataset.id.get_create_plist()
    inside = properties.get_layout() in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT) and not properties.get_external_count()
    return inside and dataset.id.get_storage_size() == math.prod(dataset.shape) * dataset.dtype.itemsize


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits.
        return
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_ADDRESS_SPACE, _MAX_ADDRESS_SPACE))


if __name__ == "__main__":
    main()
