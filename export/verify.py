"""Checks that a served version is what was exported: its files, its description, and its answers."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from export import contract
from sqz_keras import ModelSpec

# In contract.EXTRA_FOLDER, in the format of sha256sum: `sha256sum -c` reads it if run in the version's folder.
CHECKSUMS_NAME = "SHA256SUMS"
# How far a probability of the exported graph may be from Keras's, by the network's precision.
TOLERANCES = {"float32": 1e-5, "bfloat16": 0.05}


@dataclasses.dataclass(frozen=True)
class Answer:
    """Keras's answer to the image of the warm-up records.

    Args:
        probabilities: Float32 (classes,).
        features: Float32 (channels,).
        tolerance: Largest difference allowed in a probability, and in a feature as a share of the largest feature.
    """

    probabilities: np.ndarray
    features: np.ndarray
    tolerance: float


def verify(folder: str | os.PathLike) -> str:
    """Checks a version: its files against their checksums, its description, its labels, and its answers.

    The version's answers to its own warm-up requests are compared with Keras's, which are computed from the weights in
    the folder.

    Returns:
        What was checked, in one line.

    Raises:
        ValueError: sqz-export did not write `folder`, or something in it is not what was exported.
        OSError: A file cannot be read.
    """
    import tensorflow as tf

    from sqz_keras.weights.resolve import resolve_model

    folder = pathlib.Path(folder)
    files = check_files(folder)
    spec, arrays = resolve_model(folder)
    labels_path = folder / "assets" / contract.LABELS_NAME
    if labels_path.read_text("utf-8") != labels_text(spec):
        raise ValueError(f"{labels_path} does not name the classes that {contract.SPEC_NAME} describes.")
    precision = _precision(folder)
    answer = keras_answer(spec, arrays, TOLERANCES[precision])
    try:
        served = tf.saved_model.load(os.fspath(folder))
    except (tf.errors.OpError, ValueError, OSError) as error:
        raise ValueError(f"{folder} cannot be loaded: {error}") from error
    calls = check_answers(folder, served, answer)
    counted = f"{files} files, {spec.count_params():,} weights, {spec.classes} labels, {calls} warm-up calls"
    return f"{counted} in {precision}: as exported"


def keras_answer(spec: ModelSpec, arrays: Mapping[str, np.ndarray], tolerance: float) -> Answer:
    """Keras's answer to the image of the warm-up records, from a model's weights, without any exported graph."""
    import keras

    from export import warmup
    from sqz_keras import prepare_images
    from sqz_keras.images.files import read_image
    from sqz_keras.models import squeezenet

    model = squeezenet.build(spec, dict(arrays))
    pooled = keras.layers.GlobalAveragePooling2D()(model.get_layer("drop9").input)
    images = prepare_images(read_image(warmup.encoded_image())[None], spec)
    probabilities, features = keras.Model(model.inputs, [model.output, pooled]).predict_on_batch(images)
    return Answer(probabilities[0], features[0], tolerance)


def check_answers(folder: str | os.PathLike, served, answer: Answer) -> int:
    """Runs every warm-up request of a version on its loaded SavedModel, and compares the outputs with `answer`.

    Returns:
        The number of requests.

    Raises:
        ValueError: A record is missing or cannot be read, a request fails, or its outputs differ from `answer`.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    from export import warmup

    def run(request) -> tuple[str, int]:
        name, inputs = request.model_spec.signature_name, _inputs(request)
        count = len(next(iter(inputs.values()), ()))
        try:
            outputs = served.signatures[name](**inputs)
        except (tf.errors.OpError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{folder}: the warm-up call of {name} with {count} images fails: {error}") from error
        wrong = _differences({key: value.numpy() for key, value in outputs.items()}, count, answer)
        if wrong:
            raise ValueError(f"{folder}: {name} with {count} images does not answer as Keras does: {'; '.join(wrong)}.")
        return name, count

    try:
        actual = [call for _, call in warmup.replay(folder, run, run)]
    except (tf.errors.OpError, DecodeError) as error:
        raise ValueError(f"{warmup.path_of(folder)}: not the warm-up records of an export: {error}.") from error
    names = [signature.name for signature in contract.EXPORTED]
    expected = list(itertools.product(names, warmup.BATCH_SIZES))
    if actual != expected:
        raise ValueError(f"{folder}: expected warm-up calls {expected}, got {actual}. Export the model again.")
    return len(actual)


def labels_text(spec: ModelSpec) -> str:
    """The content of the asset `contract.LABELS_NAME`."""
    return "".join(f"{name}\n" for name in spec.class_names())


def write_checksums(folder: pathlib.Path) -> None:
    """Writes the checksums of all files under a version's folder."""
    lines = [f"{_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in _checked(folder)]
    (folder / contract.EXTRA_FOLDER / CHECKSUMS_NAME).write_text("".join(lines), "utf-8")


def check_files(folder: pathlib.Path) -> int:
    """Compares the files of a version with its checksums, and returns how many there are.

    Raises:
        ValueError: The version has no checksums, or a file is missing, changed, or without a checksum.
        OSError: A file cannot be read.
    """
    path = folder / contract.EXTRA_FOLDER / CHECKSUMS_NAME
    if not path.is_file():
        raise ValueError(
            f"{folder} is not a version that sqz-export wrote: it has no {contract.EXTRA_FOLDER}/{path.name}."
        )
    entries = [line.partition("  ")[::2] for line in path.read_text("utf-8").splitlines()]
    unlisted = sorted(
        {file.relative_to(folder).as_posix() for file in _checked(folder)} - {name for _, name in entries}
    )
    if unlisted:
        raise ValueError(f"{folder}: files are not in {path.name}, first {unlisted[0]}. Export the model again.")
    missing = [name for _, name in entries if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{folder}: files are missing, first {missing[0]}. Export the model again.")
    changed = [name for digest, name in entries if _sha256(folder / name) != digest]
    if changed:
        raise ValueError(f"{folder}: files are not as they were exported, first {changed[0]}. Export the model again.")
    return len(entries)


def _checked(folder: pathlib.Path) -> list[pathlib.Path]:
    """All files under a version's folder except the file of checksums."""
    sums = folder / contract.EXTRA_FOLDER / CHECKSUMS_NAME
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != sums)


def _precision(folder: pathlib.Path) -> str:
    """The network's precision, according to the types in the graph."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.framework import types_pb2
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        saved_model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    except DecodeError as error:
        raise ValueError(f"{folder}/saved_model.pb is damaged: {error}.") from error
    functions = [function for graph in saved_model.meta_graphs for function in graph.graph_def.library.function]
    types = {value.type for function in functions for node in function.node_def for value in node.attr.values()}
    return "bfloat16" if types_pb2.DT_BFLOAT16 in types else "float32"


def _sha256(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _inputs(request) -> dict:
    """A recorded request's tensors by input name."""
    import tensorflow as tf
    from tensorflow_serving.apis import classification_pb2

    if isinstance(request, classification_pb2.ClassificationRequest):
        examples = request.input.example_list.examples
        serialised = [example.SerializeToString(deterministic=True) for example in examples]
        return {contract.EXAMPLES.name: tf.constant(serialised, tf.string)}
    return {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}


def _differences(outputs: dict[str, np.ndarray], count: int, answer: Answer) -> list[str]:
    """What is wrong with the outputs of one call, in words."""
    best = np.sort(answer.probabilities)[::-1]
    expected = {
        contract.PROBABILITIES.name: (answer.probabilities, answer.tolerance),
        contract.SCORES.name: (best[: contract.TOP_K], answer.tolerance),
        contract.FEATURES.name: (answer.features, answer.tolerance * np.abs(answer.features).max()),
    }
    wrong = []
    for name, values in outputs.items():
        if len(values) != count:
            wrong.append(f"{name} for {len(values)} images")
        elif name == contract.STATUS.name and set(values.tolist()) != {contract.STATUS_OK.encode()}:
            wrong.append(f"{name} {values[0]!r}")
        elif name in expected:
            row, tolerance = expected[name]
            difference = np.abs(values - row).max() if values.shape[1:] == row.shape else np.inf
            if not difference <= tolerance:
                wrong.append(f"{name} differ by {difference:.2g}, at most {tolerance:.2g} allowed")
    return wrong
