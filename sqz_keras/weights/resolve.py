"""Resolves a record's name, a file or a folder to a model's description and its weights."""

from __future__ import annotations

import dataclasses
import os
import pathlib

import numpy as np

from sqz_keras import codec
from sqz_keras.architecture.layers import BYPASSES
from sqz_keras.architecture.metaparameters import VERSIONS
from sqz_keras.architecture.spec import ModelSpec, hash_arrays
from sqz_keras.differences import describe_changes
from sqz_keras.weights import download, hugging_face, readers, sqz
from sqz_keras.weights.arrays import WeightsFileError, check_shapes, trunk_of
from sqz_keras.weights.assumptions import spec_of_record, stated_spec, undescribed_spec, warn_of_preprocessing
from sqz_keras.weights.description import EXTRA_FOLDER, SPEC_NAME, Hints, Stated, read_spec, spec_path
from sqz_keras.weights.readers import onnx_file
from sqz_keras.weights.records import IMAGENET, Record, get_record, list_records

Arrays = dict[str, np.ndarray]


def resolve_model(
    model: str | os.PathLike, *, version: str | None = None, bypass: str | None = None, include_top: bool = True
) -> tuple[ModelSpec, Arrays]:
    """The description and the weights of the model that `--model=` names, in every command.

    Args:
        model: "imagenet" (of `version` and `bypass`, by default v1.0); a record's name; a file of weights
            (`.sqz`, `.weights.h5`, `.keras`, or any that a reader takes); a folder that `sqz-train` or `sqz-export`
            wrote, or one of `.npy` files; `hf://owner/name/file` of the Hugging Face Hub (see `hugging_face.fetch`).
        version: "1.0" or "1.1". It must agree with the file's own description; if the file has none, the version
            follows from the weights' shapes, and must agree with them.
        bypass: "simple" or "complex", likewise.
        include_top: whether conv10 is needed. If not, a file may have no head, or any other head.

    Returns:
        The ModelSpec and the float32 weights by name ("conv1/kernel", ...; kernels HWIO), checked against it.

    Raises:
        ValueError: Nothing of that name exists, or it contradicts `version`, `bypass` or its own description.
        OSError: A download failed.
    """
    if version not in (None, *VERSIONS) or bypass not in BYPASSES:
        raise ValueError(
            f"version must be None or one of {tuple(VERSIONS)}, and bypass one of {BYPASSES}; got {version!r} and "
            f"{bypass!r}."
        )
    if not isinstance(model, str | bytes | os.PathLike):
        raise ValueError(f"model must be 'imagenet', a record's name or a path, got {type(model).__name__}.")
    model = os.fsdecode(model)
    if model == "imagenet":
        model = _imagenet_name(version or "1.0", bypass)
    if model in list_records():
        record = get_record(model)
        check_agrees(record.name, record.spec, version, bypass)
        return _read_record(record)
    path = _local_path(model)
    if path is None:
        raise ValueError(
            f"No model {model!r}: expected 'imagenet', a record's name ({', '.join(list_records())}), "
            "hf://owner/name/file, or a path, and no file or folder of this name exists."
        )
    return _read_path(path, version, bypass, trunk_only=not include_top)


def for_architecture(
    weights: str | os.PathLike | None,
    architecture: ModelSpec,
    *,
    channels: int,
    classes: int | None,
    conv10_padding: int | None,
    activation: str | None = "softmax",
) -> tuple[ModelSpec, Arrays | None]:
    """The completed architecture and the arrays that a builder's `weights=` names (None for random ones).

    `classes` is None for a model without the top, which takes whatever trunk the weights hold. `activation` is the
    classifier's, by its name in Keras; None if it does not matter.

    Raises:
        ValueError: Unknown weights, or weights that do not fit the architecture.
        OSError: A download failed.
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
    elif path := _local_path(name):
        spec, arrays = _read_path(path, None, None, architecture, trunk_only=classes is None, activation=activation)
        _check_fits(name, spec, architecture, classes)
    else:
        raise ValueError(
            f"weights must be None, 'imagenet', a record's name ({', '.join(list_records())}), "
            f"hf://owner/name/file or a path; got {weights!r}, and no file or folder of this name exists."
        )
    spec = dataclasses.replace(spec, **padding)
    if classes is None:
        arrays = trunk_of(arrays)
    return spec, arrays


def _local_path(name: str) -> pathlib.Path | None:
    """A path, or the local copy of a handle of the Hugging Face Hub; None if nothing has this name."""
    path = hugging_face.fetch(name) if name.startswith(hugging_face.PREFIX) else pathlib.Path(name)
    return path if name and path.exists() else None  # an empty name does not mean the current folder


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
    activation: str | None = "softmax",
) -> tuple[ModelSpec, Arrays]:
    """Weights and description of a file or folder.

    The description is beside the file, in it, or found by the hashes of the records; otherwise it is `architecture`, or
    follows from the shapes. With `trunk_only`, the head is not checked: a conv10 of any size, no head or another one.
    """
    readers.check_not_renamed(path)
    described = path / SPEC_NAME if path.is_dir() else spec_path(path)
    if path.is_dir() and (path / "saved_model.pb").exists():
        described = path / EXTRA_FOLDER / SPEC_NAME
    elif path.is_dir() and described.exists():
        path = path / SPEC_NAME.replace(".spec.json", ".weights.h5")
    if path.suffix.lower() == ".sqz" and not path.is_dir():
        spec, arrays = _read_sqz(path)
    elif path.suffix.lower() == ".onnx" and not path.is_dir():
        spec, arrays = _read_onnx(path, described, architecture, trunk_only)
    else:
        arrays, stated = readers.read_described(path, trunk_only)
        hints = stated if isinstance(stated, Hints) else Hints()
        stated = stated if isinstance(stated, Stated) else None
        if not trunk_only:
            _check_activation(path, stated, activation)
        if described.exists():
            spec = _spec_beside(described, path, arrays, stated.spec if stated and stated.is_whole else None)
        elif stated is not None:
            spec = stated_spec(path, arrays, stated, architecture)
        else:
            spec = undescribed_spec(path, arrays, hints, architecture, version, bypass, trunk_only)
    check_agrees(str(path), spec, version, bypass)
    shapes = spec.weight_shapes()
    check_shapes(path, *((trunk_of(arrays), trunk_of(shapes)) if trunk_only else (arrays, shapes)))
    return dataclasses.replace(spec, weights_sha256=hash_arrays(arrays)), arrays


def _read_sqz(path: pathlib.Path) -> tuple[ModelSpec, Arrays]:
    try:
        model = sqz.read_model(path)
    except WeightsFileError as error:
        if not isinstance(error.__cause__, codec.BaseFileError):
            raise
        raise WeightsFileError(
            f"{error} Make the whole file of the two: sqz-receive {path} --base=OLD.sqz --output=NEW.sqz"
        ) from error.__cause__
    return model.spec, model.arrays


def _check_activation(path: pathlib.Path, stated: Stated | None, activation: str | None) -> None:
    """Refuses the default softmax for a file that ends in something else; any other activation is the user's choice."""
    if activation == "softmax" and stated is not None and stated.activation not in (None, "softmax"):
        raise ValueError(
            f"{path} ends in classifier_activation={stated.activation!r}, not in a softmax. Build its "
            f"model with sqz_keras.SqueezeNet(weights={str(path)!r}, classifier_activation={stated.activation!r}), or "
            "open it with keras.saving.load_model."
        )


def _read_onnx(
    path: pathlib.Path, described: pathlib.Path, architecture: ModelSpec | None, trunk_only: bool
) -> tuple[ModelSpec, Arrays]:
    """An ONNX file's weights, and its description: beside it, in it, or what its graph and the records say."""
    model = onnx_file.read_model(path, trunk_only)
    if described.exists():
        return _spec_beside(described, path, model.arrays, model.spec), model.arrays
    if model.spec is not None:
        return model.spec, model.arrays
    record_spec = spec_of_record(path, model.arrays)
    spec = model.infer_spec(record_spec or architecture)
    if record_spec is None and not (model.tells_colours() and model.structure.is_square):
        warn_of_preprocessing(path, spec, architecture)
    return spec, model.arrays


def _spec_beside(described: pathlib.Path, path: pathlib.Path, arrays: Arrays, inside: ModelSpec | None) -> ModelSpec:
    """The description beside the weights; its labels and preprocessing may differ from those in the weights file.

    Raises:
        WeightsFileError: it describes another network than the weights file does, or other weights.
    """
    beside = read_spec(described, path, arrays)
    if inside is not None:
        changes = describe_changes(inside.to_json(), beside.to_json(), ("labels", "preprocessing", "weights_sha256"))
        if changes:
            raise WeightsFileError(
                f"{path} describes a different model from {described.name} beside it: {changes}. Remove "
                f"{described.name} to load the file as it describes itself."
            )
    return beside


def check_agrees(name: str, spec: ModelSpec, version: str | None, bypass: str | None) -> None:
    """Refuses a network other than the requested one; None accepts what the file has.

    Raises:
        ValueError: The file holds another network.
    """
    if version not in (None, spec.version) or bypass not in (None, spec.bypass):
        raise ValueError(
            f"{name} holds {_described_network(spec)}, but version {version} with bypass={bypass!r} was requested. "
            "Leave them out, or name other weights."
        )


def _network(spec: ModelSpec) -> tuple:
    """What is equal in two networks that compute the same; fractions that round to the same filters may differ."""
    net = spec.metaparameters
    return net.fire_modules(), net.stem_filters, net.stem_kernel, net.pool_after, spec.bypass


def _described_network(spec: ModelSpec) -> str:
    name = f"version {spec.version}" if spec.version else f"{spec.metaparameters}"
    return f"{name} with bypass={spec.bypass!r}"


def _check_fits(name: str, spec: ModelSpec, architecture: ModelSpec, classes: int | None) -> None:
    """Refuses weights of a spec that does not fit this architecture."""
    if _network(spec) != _network(architecture):
        raise ValueError(
            f"weights={name!r} are of {_described_network(spec)}, and the model is of "
            f"{_described_network(architecture)}: give the same to the builder, or open the file with sqz_keras.load."
        )
    if spec.channels != architecture.channels:
        raise ValueError(f"weights={name!r} need {spec.channels} channels, and the input has {architecture.channels}.")
    if classes not in (None, spec.classes):
        raise ValueError(
            f"weights={name!r} have {spec.classes} classes, got classes={classes}. Give classes={spec.classes}; for "
            "other classes take include_top=False and put your own classifier on top."
        )
