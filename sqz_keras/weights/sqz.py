"""This project's own `.sqz`: compressed weights with the description of their model."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from sqz_keras import codec
from sqz_keras.architecture.spec import ModelSpec, hash_arrays
from sqz_keras.weights.arrays import WeightsFileError, check_shapes, float32_arrays, read_bytes

SELF_TEST_KEY = "self_test"  # in the header: what `sqz_keras.runtimes.self_test` makes
_SELF_TEST = 500  # bytes at most
_SLACK = 16  # extra bytes that a header with another hash may take when deflated


@dataclasses.dataclass(frozen=True)
class SqzModel:
    """What a `.sqz` file holds.

    Args:
        spec: The model.
        arrays: The model's weights by name, float32, kernels HWIO, checked against the spec.
        provenance: What the file was made from, and how.
        profile: "paper" or "max".
        header: The whole JSON object beside the arrays, from which spec and provenance were read.
        data: The file itself, or None if it is a delta.
    """

    spec: ModelSpec
    arrays: dict[str, np.ndarray]
    provenance: dict[str, Any]
    profile: str
    header: dict[str, Any]
    data: bytes | None = None


def read(path: str | os.PathLike, trunk_only: bool = False) -> dict[str, np.ndarray]:
    """The arrays of a `.sqz` file by name; see `read_model`."""
    del trunk_only  # the head is always conv10
    return read_model(path).arrays


def read_model(path: str | os.PathLike, base: str | os.PathLike | None = None) -> SqzModel:
    """Reads a model from a `.sqz` file.

    Args:
        path: Path of the file.
        base: The `.sqz` file that a delta is based on, if the file is a delta.

    Returns:
        The description, the weights by name, how they were made, the header, and a whole file's bytes.

    Raises:
        WeightsFileError: The file is damaged, of another version, a delta on another file, or not a model of ours.
    """
    data, base_data = read_bytes(path), None if base is None else read_bytes(base)
    try:
        contents = codec.decode(data, base_data)
    except codec.SqzError as error:
        raise WeightsFileError(f"{path}: {error}.") from error
    spec, provenance = read_header(path, contents.header)
    arrays = float32_arrays(path, contents.arrays)
    check_shapes(path, arrays, spec.weight_shapes())
    if spec.weights_sha256 not in (None, hash_arrays(arrays)):
        raise WeightsFileError(f"{path}: the weights are not those whose hash the file states. Write it again.")
    return SqzModel(spec, arrays, provenance, contents.profile, contents.header, data if base is None else None)


def is_delta(path: str | os.PathLike) -> bool:
    """Whether a `.sqz` file is a delta, which can be read only with its base.

    Raises:
        WeightsFileError: The file is damaged.
    """
    try:
        return any(section.name == "BASE" for section in codec.outline(read_bytes(path)).sections)
    except codec.SqzError as error:
        raise WeightsFileError(f"{path}: {error}.") from error


def read_header(path: str | os.PathLike, header: Mapping) -> tuple[ModelSpec, dict[str, Any]]:
    """The description and the provenance that the header of a model's `.sqz` holds.

    Raises:
        WeightsFileError: The file holds something else.
    """
    try:
        spec, provenance = ModelSpec.from_json(header["model_spec"]), header["provenance"]
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsFileError(f"{path}: its header describes no model of this project: {error!r:.200}.") from error
    if not isinstance(provenance, dict):
        raise WeightsFileError(f"{path}: its provenance must be a JSON object, got {type(provenance).__name__}.")
    return spec, provenance


def header(
    spec: ModelSpec,
    arrays: Mapping[str, np.ndarray],
    provenance: Mapping[str, Any],
    self_test: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The header of the `.sqz` file of a model.

    Args:
        spec: The model; in the header it gets the hash of the weights.
        arrays: The weights by name, float32.
        provenance: A JSON object: how the weights were made.
        self_test: A known image with its answer, from `sqz_keras.runtimes.self_test.make`.

    Returns:
        A JSON object for `codec.encode`.
    """
    spec = dataclasses.replace(spec, weights_sha256=hash_arrays(arrays))
    tested = {} if self_test is None else {SELF_TEST_KEY: dict(self_test)}
    return {"model_spec": spec.to_json(), "provenance": dict(provenance), **tested}


def encode(
    spec: ModelSpec,
    arrays: Mapping[str, np.ndarray],
    provenance: Mapping[str, Any] | None = None,
    *,
    profile: str = "max",
    base: bytes | None = None,
    self_test: Mapping[str, Any] | None = None,
) -> bytes:
    """The `.sqz` file of a model.

    Args:
        spec: The model.
        arrays: The weights by name, float32.
        provenance: A JSON object: how the weights were made.
        profile: "max" or "paper"; see `codec.encode`.
        base: The file that the result is to be a delta against.
        self_test: A known image with its answer, from `sqz_keras.runtimes.self_test.make`.

    Returns:
        The whole file.
    """
    return codec.encode(arrays, header(spec, arrays, provenance or {}, self_test), profile=profile, base=base)


def header_bytes(
    spec: ModelSpec, arrays: Mapping[str, np.ndarray], provenance: Mapping[str, Any], self_test: bool = False
) -> int:
    """The most bytes that a model's header adds to its file over an empty header, for any weights of these shapes."""
    added = len(codec.encode({}, header(spec, arrays, provenance))) - len(codec.encode({}, {}))
    return _SLACK + self_test * _SELF_TEST + added
