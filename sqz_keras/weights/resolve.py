"""From a record's name, a file or a folder to a model's description and its weights."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from sqz_keras.architecture.layers import BYPASSES
from sqz_keras.architecture.metaparameters import VERSIONS
from sqz_keras.architecture.spec import ModelSpec, Preprocessing, hash_arrays
from sqz_keras.weights import download, readers, sqz
from sqz_keras.weights.arrays import WeightsFileError, check_shapes
from sqz_keras.weights.description import EXTRA_FOLDER, SPEC_NAME, read_spec, spec_path
from sqz_keras.weights.readers import onnx_file
from sqz_keras.weights.records import IMAGENET, RECORDS, Record, get_record, list_records

Arrays = dict[str, np.ndarray]


def resolve_model(
    model: str | os.PathLike, *, version: str | None = None, bypass: str | None = None, include_top: bool = True
) -> tuple[ModelSpec, Arrays]:
    """What every `--model=` means: a model's description and its weights.

    Args:
        model: "imagenet" (of `version` and `bypass`, v1.0 where they are left out); a record's name; a file of weights
            (`.sqz`, `.weights.h5`, `.keras`, or any that an importer reads); a folder that `sqz-train` or `sqz-export`
            wrote, or of `.npy` files.
        version: "1.0" or "1.1": must agree with what the file says of itself, and is needed where it says nothing.
        bypass: "simple" or "complex", likewise.
        include_top: whether conv10 is needed. Where it is not, a file may have no head, or any other.

    Returns:
        The ModelSpec and the float32 weights by name ("conv1/kernel", ...; kernels HWIO), checked against it.

    Raises:
        ValueError: nothing of that name exists, or it contradicts `version`, `bypass` or its own description.
        OSError: a download failed.
    """
    model = os.fspath(model)
    if model == "imagenet":
        model = _imagenet_name(version or "1.0", bypass)
    if model in list_records():
        record = get_record(model)
        _check_agrees(record.name, record.spec, version, bypass)
        return _read_record(record)
    path = pathlib.Path(model)
    if not path.exists():
        raise ValueError(
            f"No model {model!r}: expected 'imagenet', a record's name ({', '.join(list_records())}), or a path, and "
            "no file or folder of this name exists."
        )
    return _read_path(path, version, bypass, trunk_only=not include_top)


def for_architecture(
    weights: str | os.PathLike | None,
    architecture: ModelSpec,
    *,
    channels: int,
    classes: int | None,
    conv10_padding: int | None,
) -> tuple[ModelSpec, Arrays | None]:
    """What a builder's `weights=` means: the architecture filled in, and the arrays for it (None for random ones).

    `classes` is None for a model without the top, which takes whatever trunk the weights hold.

    Raises:
        ValueError: unknown weights, or weights that do not fit the architecture.
        OSError: a download failed.
    """
    padding = {} if conv10_padding is None else {"conv10_padding": conv10_padding}
    architecture = dataclasses.replace(architecture, channels=channels, classes=classes or architecture.classes)
    if weights is None:
        return dataclasses.replace(architecture, **padding), None
    name = os.fspath(weights) if isinstance(weights, str | os.PathLike) else repr(weights)
    if name == "imagenet":
        name = _imagenet_name(architecture.version, architecture.bypass)
    if name in list_records():
        record = get_record(name)
        _check_fits(record.name, record.spec, architecture, classes)
        spec, arrays = _read_record(record)
    elif os.path.exists(name):
        spec, arrays = _read_path(pathlib.Path(name), None, None, architecture, trunk_only=classes is None)
        _check_fits(name, spec, architecture, classes)
    else:
        raise ValueError(
            f"weights must be None, 'imagenet', a record's name ({', '.join(list_records())}) or a path; got "
            f"{weights!r}, and no file or folder of this name exists."
        )
    spec = dataclasses.replace(spec, **padding)
    if classes is None:
        arrays = _trunk(arrays)
    return spec, arrays


def _imagenet_name(version: str | None, bypass: str | None) -> str:
    name = IMAGENET.get((version, bypass))
    if name is None:
        net = "custom metaparameters" if version is None else f"version {version} with bypass={bypass!r}"
        published = ", ".join(f"version {v} with bypass={b!r}" for v, b in IMAGENET)
        raise ValueError(f"No ImageNet weights exist for {net}, only for {published}. Pass weights=None, or a path.")
    return name


def _read_record(record: Record) -> tuple[ModelSpec, Arrays]:
    path = download.fetch(record)
    arrays = readers.read_arrays(path)
    check_shapes(path, arrays, record.spec.weight_shapes())
    return dataclasses.replace(record.spec, weights_sha256=hash_arrays(arrays)), arrays


def _read_path(
    path: pathlib.Path,
    version: str | None,
    bypass: str | None,
    architecture: ModelSpec | None = None,
    trunk_only: bool = False,
) -> tuple[ModelSpec, Arrays]:
    """Weights and description of a file or folder.

    The description is in it (`.sqz`), beside it, or found by the hashes of the records; else it is `architecture`, or
    what the shapes say. With `trunk_only` a conv10 of any size, none or another head will do; it is not checked.
    """
    described = path / SPEC_NAME if path.is_dir() else spec_path(path)
    if path.is_dir() and (path / "saved_model.pb").exists():
        described = path / EXTRA_FOLDER / SPEC_NAME
    elif path.is_dir() and described.exists():
        path = path / SPEC_NAME.replace(".spec.json", ".weights.h5")
    if path.suffix.lower() == ".sqz" and not path.is_dir():
        model = sqz.read_model(path)
        spec, arrays = model.spec, model.arrays
    elif path.suffix.lower() == ".onnx" and not path.is_dir():
        spec, arrays = _read_onnx(path, described, architecture, trunk_only)
    else:
        arrays = readers.read_arrays(path, trunk_only)
        if described.exists():
            spec = read_spec(described, path, arrays)
        else:
            spec = _record_spec(path, arrays) or architecture or _infer_spec(path, arrays, version, bypass)
    _check_agrees(str(path), spec, version, bypass)
    shapes = spec.weight_shapes()
    check_shapes(path, *((_trunk(arrays), _trunk(shapes)) if trunk_only else (arrays, shapes)))
    return dataclasses.replace(spec, weights_sha256=hash_arrays(arrays)), arrays


def _read_onnx(
    path: pathlib.Path, described: pathlib.Path, architecture: ModelSpec | None, trunk_only: bool
) -> tuple[ModelSpec, Arrays]:
    """An ONNX file's weights, and its description: in it, beside it, or what its graph and the records say."""
    model = onnx_file.read_model(path, trunk_only)
    beside = read_spec(described, path, model.arrays) if described.exists() else None
    if beside and model.spec and _without_hash(beside) != _without_hash(model.spec):
        raise WeightsFileError(
            f"{path}: its metadata and {described.name} describe different models. Remove {described.name} to load the "
            "file as it describes itself."
        )
    spec = beside or model.spec or model.infer_spec(_record_spec(path, model.arrays) or architecture)
    return spec, model.arrays


def _without_hash(spec: ModelSpec) -> ModelSpec:
    return dataclasses.replace(spec, weights_sha256=None)


def _trunk(by_name: Mapping) -> dict:
    return {name: value for name, value in by_name.items() if not name.startswith("conv10/")}


def _record_spec(path: pathlib.Path, arrays: Arrays) -> ModelSpec | None:
    """The spec of the record whose file, or whose weights, these are."""
    content = path.read_bytes() if path.is_file() else b""
    tensors = hash_arrays(arrays)
    for record in RECORDS:
        if record.spec.weights_sha256 == tensors or record.verifies(content):
            return record.spec
    return None


def _infer_spec(path: pathlib.Path, arrays: Arrays, version: str | None, bypass: str | None) -> ModelSpec:
    """A spec from names and shapes alone; the preprocessing is what the kind of file is usually made for."""
    trunk = _trunk(arrays).keys()
    fitting = [kind for kind in BYPASSES if _trunk(ModelSpec("1.0", kind).weight_shapes()).keys() == trunk]
    if fitting and bypass not in fitting:
        bypass = fitting[0]
    options = {"bypass": bypass}
    if path.suffix.lower() in (".pth", ".pt", ".safetensors"):
        options |= {"input_size": 224, "preprocessing": Preprocessing("torch", "shortest_side", 256)}
    if "conv10/bias" in arrays and arrays["conv10/bias"].size:
        options["classes"] = int(arrays["conv10/bias"].size)
    for candidate in [version] if version else VERSIONS:
        spec = ModelSpec(candidate, **options)
        if arrays.get("conv1/kernel", np.empty(0)).shape == spec.weight_shapes()["conv1/kernel"]:
            return spec
    return ModelSpec(version or "1.0", **options)


def _check_agrees(name: str, spec: ModelSpec, version: str | None, bypass: str | None) -> None:
    if version not in (None, spec.version) or bypass not in (None, spec.bypass):
        raise ValueError(
            f"{name} holds version {spec.version} with bypass={spec.bypass!r}, but version {version} with "
            f"bypass={bypass!r} was requested. Leave them out, or name other weights."
        )


def _check_fits(name: str, spec: ModelSpec, architecture: ModelSpec, classes: int | None) -> None:
    """Whether weights of this spec belong into this architecture."""
    if (spec.metaparameters, spec.bypass) != (architecture.metaparameters, architecture.bypass):
        raise ValueError(
            f"weights={name!r} are of version {spec.version} with bypass={spec.bypass!r}, and the model is of version "
            f"{architecture.version} with bypass={architecture.bypass!r}: give the same version and bypass."
        )
    if spec.channels != architecture.channels:
        raise ValueError(f"weights={name!r} need {spec.channels} channels, and the input has {architecture.channels}.")
    if classes not in (None, spec.classes):
        raise ValueError(
            f"weights={name!r} have {spec.classes} classes, got classes={classes}. For other classes take "
            "include_top=False and put your own classifier on top."
        )
