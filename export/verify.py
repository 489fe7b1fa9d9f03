"""Whether a served version is what was exported: its files, its description, and what it answers."""

from __future__ import annotations

import hashlib
import os
import pathlib

from export import contract
from sqz_keras import ModelSpec

# In contract.EXTRA_FOLDER, in the form of sha256sum: `sha256sum -c` reads it, in the version's folder.
CHECKSUMS_NAME = "SHA256SUMS"
# Of a probability, between the exported graph and Keras, by what the network computes in.
TOLERANCES = {"float32": 1e-5, "bfloat16": 0.05}


def verify(folder: str | os.PathLike) -> str:
    """Checks a version: files by their checksums, description, labels, and its answers beside those of Keras.

    The answers are those to the version's own warm-up calls; Keras's are computed from the weights that were read back.

    Returns:
        What was checked, in one line.

    Raises:
        ValueError: `folder` is no version of ours, or something in it is not what was exported.
        OSError: a file cannot be read.
    """
    import tensorflow as tf

    from export import warmup
    from sqz_keras.weights.resolve import resolve_model

    folder = pathlib.Path(folder)
    files = _check_files(folder)
    spec, arrays = resolve_model(folder)
    labels_path = folder / "assets" / contract.LABELS_NAME
    if labels_path.read_text("utf-8") != labels_text(spec):
        raise ValueError(f"{labels_path} does not name the classes that {contract.SPEC_NAME} describes.")
    precision = _precision(folder)
    answer = warmup.keras_answer(spec, arrays, TOLERANCES[precision])
    try:
        served = tf.saved_model.load(os.fspath(folder))
    except (tf.errors.OpError, ValueError, OSError) as error:
        raise ValueError(f"{folder} cannot be loaded: {error}") from error
    calls = warmup.replay(folder, served, answer)
    counted = f"{files} files, {spec.count_params():,} weights, {spec.classes} labels, {calls} warm-up calls"
    return f"{counted} in {precision}: as exported"


def labels_text(spec: ModelSpec) -> str:
    """The content of the asset `contract.LABELS_NAME`."""
    return "".join(f"{name}\n" for name in spec.class_names())


def write_checksums(folder: pathlib.Path) -> None:
    """Writes the checksums of all files under a version's folder."""
    target = folder / contract.EXTRA_FOLDER / CHECKSUMS_NAME
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != target)
    target.write_text("".join(f"{_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files), "utf-8")


def _precision(folder: pathlib.Path) -> str:
    """What the network computes in, by the types of the graph."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.framework import types_pb2
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        saved_model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    except DecodeError as error:
        raise ValueError(f"{folder}/saved_model.pb is damaged: {error}.") from error
    functions = [function for graph in saved_model.meta_graphs for function in graph.graph_def.library.function]
    types = {value.type for each in functions for node in each.node_def for value in node.attr.values()}
    return contract.PRECISIONS[types_pb2.DT_BFLOAT16 in types]


def _check_files(folder: pathlib.Path) -> int:
    path = folder / contract.EXTRA_FOLDER / CHECKSUMS_NAME
    if not path.is_file():
        raise ValueError(
            f"{folder} is no version that sqz-export wrote: it has no {contract.EXTRA_FOLDER}/{path.name}."
        )
    entries = [line.partition("  ")[::2] for line in path.read_text("utf-8").splitlines()]
    missing = [name for _, name in entries if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{folder}: files are missing, first {missing[0]}. Export the model again.")
    changed = [name for digest, name in entries if _sha256(folder / name) != digest]
    if changed:
        raise ValueError(f"{folder}: files are not as they were exported, first {changed[0]}. Export the model again.")
    return len(entries)


def _sha256(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
