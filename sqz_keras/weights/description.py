"""The description beside a file of weights: what the weights alone do not say, and the hashes that tie the two."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import zipfile
from collections.abc import Mapping

import numpy as np

from sqz_keras.architecture.spec import MAX_JSON_BYTES, ModelSpec, hash_arrays
from sqz_keras.files import write_json
from sqz_keras.version import __version__
from sqz_keras.weights.arrays import WeightsFileError

SPEC_NAME = "model.spec.json"
PACKAGE_VERSION_KEY = "package_version"  # in that file
EXTRA_FOLDER = "assets.extra"  # in a SavedModel: the folder that TensorFlow leaves for files like SPEC_NAME
# What the description is called in a file: a dataset of a `.weights.h5` file, a constant of a SavedModel's graph, an
# entry of the metadata of ONNX and LiteRT files.
SPEC_KEY = "model_spec"
_SUFFIXES = (".weights.h5", ".keras")
_DESCRIBED = (*_SUFFIXES, ".tflite", ".onnx")  # files that may share one description


@dataclasses.dataclass(frozen=True)
class Stated:
    """What a file of weights says about its own model.

    Args:
        spec: The model.
        is_whole: Whether the file states preprocessing and labels too, as files of this project do. Otherwise the spec
            has the authors' preprocessing and no labels.
        activation: The classifier's activation by its name in Keras, or None for a model without the top.
    """

    spec: ModelSpec
    is_whole: bool = True
    activation: str | None = "softmax"


@dataclasses.dataclass(frozen=True)
class Hints:
    """What a file of weights says about its network without a full description; None for what it does not say.

    Args:
        input_size: Height and width of the input, in pixels.
        conv10_padding: Rows and columns of zeros around conv10's input.
        has_bypass: Whether outputs of fire modules are added to something.
        other_colours: How images were prepared for training, if not in the authors' way.
        mean_file: Whether the subtracted means are in another file.
    """

    input_size: int | None = None
    conv10_padding: int | None = None
    has_bypass: bool | None = None
    other_colours: str | None = None
    mean_file: bool = False


def spec_text(spec: ModelSpec) -> str:
    """The description as JSON, without the hash, so that the same model gives the same bytes wherever it came from."""
    return json.dumps(dataclasses.replace(spec, weights_sha256=None).to_json())


def embed_spec(path: str | os.PathLike, spec: ModelSpec) -> None:
    """Puts the description of a model into its `.keras` or `.weights.h5` file, which Keras reads as before."""
    data = spec_text(spec).encode()
    if os.fspath(path).endswith(".keras"):
        member = zipfile.ZipInfo(SPEC_NAME)  # stored, with a fixed date, so that files are reproducible
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(member, data)
        return
    import h5py

    with h5py.File(path, "r+") as file:
        file.create_dataset(SPEC_KEY, data=np.frombuffer(data, np.uint8))


def parse_spec(path: str | os.PathLike, data: bytes | str) -> ModelSpec:
    """The description that a file of weights holds as JSON.

    Raises:
        WeightsFileError: The JSON is not a description of ours.
    """
    try:
        return ModelSpec.from_json(json.loads(data))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsFileError(f"{path}: the description in it is not one of this project: {error!s:.200}.") from error


def write_spec(path: str | os.PathLike, spec: ModelSpec, arrays: Mapping[str, np.ndarray]) -> pathlib.Path:
    """Writes the description beside a file of weights: `model.weights.h5` -> `model.spec.json`.

    It holds the version of this package, the ModelSpec (with the hash of the weights) and each tensor's shape and hash,
    so that swapped tensors or a replaced file are noticed when they are read back.

    Returns:
        The path that was written.
    """
    path = spec_path(path)
    write_json(path, _form(spec, arrays))
    return path


def _form(spec: ModelSpec, arrays: Mapping[str, np.ndarray]) -> dict:
    spec = dataclasses.replace(spec, weights_sha256=hash_arrays(arrays))
    tensors = {name: {"shape": list(array.shape), "sha256": _sha256(array)} for name, array in arrays.items()}
    return {PACKAGE_VERSION_KEY: __version__, "model_spec": spec.to_json(), "tensors": tensors}


def check_no_other_spec(path: str | os.PathLike, spec: ModelSpec, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuses to write a file whose description would replace another model's.

    Raises:
        ValueError: A description is there that differs from the one to write, and it does not belong to this file
            alone: the file does not exist, or a file of another format shares the description.
    """
    described, path = spec_path(path), pathlib.Path(path)
    if not described.exists():
        return
    sharing = (other for other in described.parent.iterdir() if other.name.lower().endswith(_DESCRIBED))
    if path.exists() and all(other == path or spec_path(other) != described for other in sharing):
        return
    with contextlib.suppress(ValueError, TypeError):
        form = {**json.loads(described.read_text("utf-8-sig")), PACKAGE_VERSION_KEY: __version__}
        if form == json.loads(json.dumps(_form(spec, arrays))):
            return
    raise ValueError(
        f"{described} describes another model, and would be replaced by the description of {path}. Give another name, "
        "or remove it and what it describes."
    )


def spec_path(path: str | os.PathLike) -> pathlib.Path:
    """The path of a weights file's description: the file's own, with the suffix replaced by `.spec.json`."""
    path = pathlib.Path(path)
    for suffix in _SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.with_name(path.name[: -len(suffix)] + ".spec.json")
    return path.with_suffix(".spec.json")


def read_spec(described: pathlib.Path, path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> ModelSpec:
    """Reads a description and compares it with the weights beside it.

    Args:
        described: The file that `write_spec` wrote.
        path: File or folder of the weights, named in errors.
        arrays: The weights by name, float32.

    Raises:
        WeightsFileError: The description is not one of ours, or the weights are not those that it describes.
    """
    if described.stat().st_size > MAX_JSON_BYTES:
        raise WeightsFileError(f"{described}: more than {MAX_JSON_BYTES} bytes, too many for a description.")
    try:
        form = json.loads(described.read_text("utf-8-sig"))
        spec = ModelSpec.from_json(form["model_spec"])
        hashes = {name: tensor["sha256"] for name, tensor in form["tensors"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsFileError(
            f"{described}: not a description that write_spec wrote: {str(error).rstrip('.')}."
        ) from error
    wrong = sorted(name for name in hashes.keys() | arrays.keys() if _sha256(arrays.get(name)) != hashes.get(name))
    if wrong:
        raise WeightsFileError(
            f"{path}: {len(wrong)} tensors are not those that {described.name} describes, first {wrong[0]}: they were "
            "swapped, changed or belong to another file. Restore the pair, or remove the description to load the file "
            "as it is."
        )
    return spec


def _sha256(array: np.ndarray | None) -> str | None:
    return None if array is None else hashlib.sha256(np.ascontiguousarray(array, "<f4").tobytes()).hexdigest()
