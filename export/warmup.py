"""Warm-up records: calls that a server makes before it serves a version, and by which a version is checked.

One record for each signature and allowed batch size, all of one tiny image, so that one answer is right for every
row.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import os
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import classification_pb2, predict_pb2, prediction_log_pb2

from export import contract
from sqz_keras import ModelSpec, prepare_images
from sqz_keras.images.files import read_image
from sqz_keras.models import squeezenet

_SIZE = 8  # pixels; the graph scales the image up


@dataclasses.dataclass(frozen=True)
class Answer:
    """What Keras answers to the image of the records.

    Args:
        probabilities: float32 (classes,).
        features: float32 (channels,).
        tolerance: of a probability, and of a feature as a share of the largest.
    """

    probabilities: np.ndarray
    features: np.ndarray
    tolerance: float


def write(folder: str | os.PathLike) -> None:
    """Writes the records into a SavedModel's folder; `contract.EXTRA_FOLDER` exists there."""
    with tf.io.TFRecordWriter(os.fspath(_path(folder))) as writer:
        for signature, count in itertools.product(contract.EXPORTED, contract.ALLOWED_BATCH_SIZES):
            writer.write(_record(signature, count).SerializeToString(deterministic=True))


def keras_answer(spec: ModelSpec, arrays: Mapping[str, np.ndarray], tolerance: float) -> Answer:
    """What the model itself makes of the image, by its weights and without any exported graph."""
    import keras

    model = squeezenet.build(spec, dict(arrays))
    pooled = keras.layers.GlobalAveragePooling2D()(model.get_layer("drop9").input)
    images = prepare_images(read_image(_encoded())[None], spec)
    probabilities, features = keras.Model(model.inputs, [model.output, pooled]).predict_on_batch(images)
    return Answer(probabilities[0], features[0], tolerance)


def replay(folder: str | os.PathLike, served, answer: Answer) -> int:
    """Makes every recorded call to a loaded SavedModel.

    Returns:
        The number of calls.

    Raises:
        ValueError: a record is missing or cannot be read, a call fails, or an answer is another than `answer`.
    """
    expected = list(
        itertools.product([signature.name for signature in contract.EXPORTED], contract.ALLOWED_BATCH_SIZES)
    )
    seen = []
    for name, count, inputs in _read(folder):
        try:
            outputs = served.signatures[name](**inputs)
        except (tf.errors.OpError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{folder}: the warm-up call of {name} with {count} images fails: {error}") from error
        wrong = _differences({key: value.numpy() for key, value in outputs.items()}, count, answer)
        if wrong:
            raise ValueError(f"{folder}: {name} with {count} images answers otherwise than Keras: {'; '.join(wrong)}.")
        seen.append((name, count))
    if seen != expected:
        raise ValueError(f"{folder}: expected warm-up calls {expected}, got {seen}. Export the model again.")
    return len(seen)


def _path(folder: str | os.PathLike) -> pathlib.Path:
    return pathlib.Path(folder, contract.EXTRA_FOLDER, contract.WARMUP_NAME)


def _encoded() -> bytes:
    """A JPEG file with every colour in it."""
    across, down = np.meshgrid(np.linspace(0, 255, _SIZE), np.linspace(0, 255, _SIZE))
    pixels = np.stack([across, down, 255 - across], axis=2).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def _example() -> tf.train.Example:
    image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[_encoded()]))
    return tf.train.Example(features=tf.train.Features(feature={contract.EXAMPLE_FEATURE: image}))


def _record(signature: contract.Signature, count: int) -> prediction_log_pb2.PredictionLog:
    log = prediction_log_pb2.PredictionLog()
    if signature == contract.CLASSIFY:
        request = log.classify_log.request
        request.input.example_list.examples.extend([_example()] * count)
    else:
        request = log.predict_log.request
        if signature.input == contract.IMAGES:
            values = np.repeat(read_image(_encoded())[None].astype(np.float32), count, axis=0)
        else:
            values = [_encoded()] * count
        request.inputs[signature.input.name].CopyFrom(tf.make_tensor_proto(values))
    request.model_spec.name, request.model_spec.signature_name = contract.MODEL_NAME, signature.name
    return log


def _read(folder: str | os.PathLike) -> Iterator[tuple[str, int, dict[str, tf.Tensor]]]:
    """The recorded calls: a signature's name, the number of images, the inputs."""
    from google.protobuf.message import DecodeError

    try:
        for data in tf.data.TFRecordDataset(os.fspath(_path(folder))).as_numpy_iterator():
            log = prediction_log_pb2.PredictionLog.FromString(data)
            inputs = _inputs(log)
            (batch,) = {len(values) for values in inputs.values()}
            yield getattr(log, log.WhichOneof("log_type")).request.model_spec.signature_name, batch, inputs
    except (tf.errors.OpError, DecodeError, TypeError, ValueError) as error:
        raise ValueError(f"{_path(folder)}: not the warm-up records of an export: {error}.") from error


def _inputs(log: prediction_log_pb2.PredictionLog) -> dict[str, tf.Tensor]:
    if log.HasField("classify_log"):
        request: classification_pb2.ClassificationRequest = log.classify_log.request
        examples = [each.SerializeToString(deterministic=True) for each in request.input.example_list.examples]
        return {contract.EXAMPLES.name: tf.constant(examples, tf.string)}
    predict: predict_pb2.PredictRequest = log.predict_log.request
    return {name: tf.constant(tf.make_ndarray(value)) for name, value in predict.inputs.items()}


def _differences(outputs: dict[str, np.ndarray], count: int, answer: Answer) -> list[str]:
    """What is wrong with the outputs of one call, for people."""
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
            want, tolerance = expected[name]
            difference = np.abs(values - want).max() if values.shape[1:] == want.shape else np.inf
            if not difference <= tolerance:
                wrong.append(f"{name} differ by {difference:.2g}, at most {tolerance:.2g} allowed")
    return wrong
