"""What is assumed of weights that do not say it: the record's description, or the usual one for the kind of file."""

from __future__ import annotations

import dataclasses
import pathlib
import warnings

import numpy as np

from sqz_keras.architecture.layers import BYPASSES
from sqz_keras.architecture.metaparameters import version_of_stem
from sqz_keras.architecture.spec import ModelSpec, hash_arrays
from sqz_keras.weights.arrays import WeightsFileError, trunk_of
from sqz_keras.weights.description import SPEC_NAME, Hints, Stated
from sqz_keras.weights.readers import TORCH_SUFFIXES
from sqz_keras.weights.records import RECORDS, TORCHVISION, authors_preprocessing

Arrays = dict[str, np.ndarray]


def stated_spec(path: pathlib.Path, arrays: Arrays, stated: Stated, architecture: ModelSpec | None) -> ModelSpec:
    """The spec that a file states; preprocessing and labels that it does not state are a record's, or assumed."""
    if stated.is_whole:
        return stated.spec
    record_spec = spec_of_record(path, arrays)
    if record_spec is not None:
        return dataclasses.replace(stated.spec, preprocessing=record_spec.preprocessing, labels=record_spec.labels)
    warn_of_preprocessing(path, stated.spec, architecture)
    return stated.spec


def undescribed_spec(
    path: pathlib.Path,
    arrays: Arrays,
    hints: Hints,
    architecture: ModelSpec | None,
    version: str | None,
    bypass: str | None,
    trunk_only: bool,
) -> ModelSpec:
    """The spec of weights that nothing describes; what their file does not say is assumed, with a warning."""
    record_spec = spec_of_record(path, arrays)
    if record_spec is not None:
        return record_spec
    if hints.other_colours is not None and architecture is None:
        raise WeightsFileError(
            f"{path} was trained on images with {hints.other_colours}, which no mode of preprocessing does. Build its "
            f"model with sqz_keras.SqueezeNet(weights={str(path)!r}, classes=...), and prepare the images yourself."
        )
    spec = architecture or _infer_spec(path, arrays, version, bypass, hints.input_size)
    spec = _with_hints(path, spec, arrays, hints)
    is_caffe = path.suffix.lower() == ".caffemodel"
    is_keras = path.name.lower().endswith((".h5", ".keras")) or (path / "saved_model.pb").exists()
    if hints.has_bypass is not None and (trunk_only or hints.conv10_padding is not None):
        if not is_caffe or hints.mean_file:  # else its preprocessing is the authors'
            warn_of_preprocessing(path, spec, architecture)
    elif (is_caffe or is_keras) and not (architecture and trunk_only):
        _warn(
            path,
            f"which network it holds: it is taken as version {spec.version} with bypass={spec.bypass!r}, pools behind "
            f"{spec.metaparameters.pool_after} and conv10_padding={spec.conv10_padding}, "
            f"mode={spec.preprocessing.mode!r}",
        )
    elif path.is_dir():  # of .npy files, which may be Gluon's or another program's
        warn_of_preprocessing(path, spec, architecture)
    return spec


def spec_of_record(path: pathlib.Path, arrays: Arrays) -> ModelSpec | None:
    """The spec of the record with this file, or with these weights; None if there is none."""
    content = path.read_bytes() if path.is_file() else b""
    tensors = hash_arrays(arrays)
    for record in RECORDS:
        if record.spec.weights_sha256 == tensors or record.verifies(content):
            return record.spec
    return None


def warn_of_preprocessing(path: pathlib.Path, spec: ModelSpec, architecture: ModelSpec | None) -> None:
    """Warns, unless a builder is the caller: then the user prepares images and names classes without the spec."""
    if architecture is not None:
        return
    how = spec.preprocessing
    _warn(
        path,
        f"how images are prepared, nor its labels: they are resized to {how.resize_to} pixels, cropped to "
        f"{spec.input_size}x{spec.input_size} and prepared as by preprocess_input(mode={how.mode!r})",
    )


def _infer_spec(
    path: pathlib.Path, arrays: Arrays, version: str | None, bypass: str | None, input_size: int | None
) -> ModelSpec:
    """A spec from names and shapes; the preprocessing is the usual one for the kind of file."""
    trunk = trunk_of(arrays).keys()
    fitting = [kind for kind in BYPASSES if trunk_of(ModelSpec("1.0", kind).weight_shapes()).keys() == trunk]
    if fitting and bypass not in fitting:
        bypass = fitting[0]
    size = input_size or ModelSpec().input_size
    *window, channels, filters = arrays.get("conv1/kernel", np.empty((0, 0, 3, 0))).shape
    options = {"bypass": bypass, "input_size": size, "preprocessing": authors_preprocessing(size), "channels": channels}
    if path.suffix.lower() in TORCH_SUFFIXES:
        options |= {"input_size": 224, "preprocessing": TORCHVISION}
    if "conv10/bias" in arrays and arrays["conv10/bias"].size:
        options["classes"] = int(arrays["conv10/bias"].size)
    return ModelSpec(version or version_of_stem(window, filters) or "1.0", **options)


def _with_hints(path: pathlib.Path, spec: ModelSpec, arrays: Arrays, hints: Hints) -> ModelSpec:
    """The spec with the bypass and conv10's padding of the file, or with the padding that such files usually have."""
    changes = {}
    if hints.conv10_padding is not None:
        changes["conv10_padding"] = hints.conv10_padding
    elif path.suffix.lower() == ".caffemodel" and spec.version == "1.0":
        changes["conv10_padding"] = 1  # as in every v1.0 that was released for Caffe
    if hints.has_bypass is not None:
        is_complex = any("_bypass1x1/" in name for name in arrays)
        changes["bypass"] = "complex" if is_complex else "simple" if hints.has_bypass else None
    return dataclasses.replace(spec, **changes)


def _warn(path: pathlib.Path, what: str) -> None:
    warnings.warn(
        f"{path} does not say {what}. Keep its {SPEC_NAME} beside it, or give a .sqz file or a file of sqz-export, "
        "which say it.",
        stacklevel=2,
    )
