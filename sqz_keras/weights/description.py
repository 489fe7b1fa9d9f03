"""The description beside a file of weights: what the weights alone do not say, and the hashes that tie the two."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import zipfile
from collections.abc import Mapping, Sequence

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
# Labels with the index of their class before or after them, as other programs write them, and what the first index may
# be. "1 euro" may be a name; "0 tench", "1. tench" and "#1 tench" are not names.
_NUMBERED = (
    (re.compile(r"([0-9]{1,6})(?:[.)](?![0-9]) *| +- +)(\S.*)"), (0, 1)),
    (re.compile(r"([0-9]{1,6}) +(\S.*)"), (0,)),
    (re.compile(r"(\S.*) +([0-9]{1,6})"), (0,)),
    (re.compile(r"[#(\[]([0-9]{1,6})[)\]]? *(\S.*)"), (0, 1)),
)
_NUMBER = re.compile("[0-9]{1,6}")
_SEPARATORS = ",;\t|=:"
_IN_QUOTES = re.compile(r"""(["']).*\1,?|[-*] .*|.*[,;]""")  # or in a list, of YAML or something else
_WITH_WNID = re.compile(r"n[0-9]{8}[ ,;:\t]+\S.*|\S.*[ ,;:\t]+n[0-9]{8}")  # as in Caffe's synset_words.txt


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


def read_labels(path: str | os.PathLike) -> tuple[str, ...]:
    """The class names in a text file, one a line, in the order of the class indices.

    Spaces around a name and blank lines at the end are ignored.

    Raises:
        ValueError: The file is empty, too large or not UTF-8 text, is JSON, Python or YAML, numbers its lines, has ids
            of ImageNet beside the names, or has a blank line before its end.
        OSError: The file cannot be read.
    """
    expected = f"{os.fspath(path)}: expected text in UTF-8 with the name of a class on each line"
    with open(path, "rb") as file:
        data = file.read(MAX_JSON_BYTES + 1)
    if len(data) > MAX_JSON_BYTES:
        raise ValueError(f"{expected}, got more than {MAX_JSON_BYTES} bytes.")
    text = data.decode("utf-8", "replace").replace("\ufeff", "")  # the byte order mark of some editors
    if "\N{REPLACEMENT CHARACTER}" in text or "\0" in text:
        raise ValueError(f"{expected}, got another encoding. Save it as UTF-8.")
    labels = tuple(line.strip() for line in text.rstrip().splitlines())
    if not labels:
        raise ValueError(f"{expected}, got an empty file.")
    if any(text.lstrip()[:1] in ("{", "[") and _is_literal(text) for text in (text, labels[0])):
        raise ValueError(f"{expected}, got JSON or Python. Write each name on a line of its own.")
    if not all(labels):
        raise ValueError(f"{expected}, got a blank line {labels.index('') + 1}. Remove it, or name its class.")
    if _are_numbered(labels):
        raise ValueError(
            f"{expected}, got numbered lines such as {labels[0]!r:.40}. Write the names alone, in the order of the "
            "numbers."
        )
    if all(map(_WITH_WNID.fullmatch, labels)):
        raise ValueError(
            f"{expected}, got ids of ImageNet beside the names, such as {labels[0]!r:.40}. Write the names alone, or "
            "the ids alone."
        )
    if all(map(_IN_QUOTES.fullmatch, labels)):
        raise ValueError(f"{expected}, got lines such as {labels[0]!r:.40}. Write the names alone.")
    return labels


def with_labels(spec: ModelSpec, labels: Sequence[str]) -> ModelSpec:
    """The model with other names for its classes.

    Raises:
        ValueError: The labels are the model's own names in another order, or not one name for each class.
    """
    for own in (spec.labels, spec.class_names()) if spec.labels else ():
        if sorted(labels) == sorted(own) and tuple(labels) != own:
            place = next(index for index, pair in enumerate(zip(labels, own, strict=True)) if pair[0] != pair[1])
            raise ValueError(
                f"The file of labels has the model's own names in another order, first {labels[place]!r} instead of "
                f"{own[place]!r}. Leave out --labels: the model says which class is which."
            )
    return dataclasses.replace(spec, labels=tuple(labels))


def _are_numbered(labels: Sequence[str]) -> bool:
    for pattern, starts in _NUMBERED:
        starts = starts if len(labels) < 3 else (0, 1)  # "1 dollar" and "2 dollars" may be names
        if _is_index([match.groups() if match else () for match in map(pattern.fullmatch, labels)], starts):
            return True
    for separator in _SEPARATORS:
        rows = [[cell.strip(" \"'") for cell in line.split(separator)] for line in labels]
        if _is_index(rows, (0, 1)) or (len(rows) > 2 and _is_index(rows[1:], (0, 1))):  # after a header
            return True
    return False


def _is_index(rows: Sequence[Sequence[str]], starts: Sequence[int]) -> bool:
    """Whether a column numbers the rows, in any order; if the rest is mostly equal, the numbers belong to the names."""
    width = min(map(len, rows))
    for column in (-1, *range(width)) if width > 1 else ():
        cells = [row[column] for row in rows]
        if all(map(_NUMBER.fullmatch, cells)):
            numbers, names = sorted(map(int, cells)), {(*row[:column], *row[column:][1:]) for row in rows}
            is_index = any(numbers == list(range(start, start + len(rows))) for start in starts)
            if is_index and 2 * len(names) > len(rows):  # two of ImageNet's names occur twice
                return True
    return False


def _is_literal(text: str) -> bool:
    for parse in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            parse(text)
            return True
    return False


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
