"""Warm-up records: requests that a server runs before it serves a version, and that serve to check a version.

There is one record for each signature and batch size, all of one tiny image, so every row of every answer should be
the same.
"""

from __future__ import annotations

import io
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import classification_pb2, predict_pb2, prediction_log_pb2

from export import contract
from sqz_keras.images.files import read_image

# The graph works in parts of one or two images: these sizes run one part, two at once, and two of different sizes.
# Larger calls would add nothing, and would delay the start of a server.
BATCH_SIZES = (1, 2, 3)
MAX_RECORDS = 1000  # TensorFlow Serving refuses to load a version with more
_SIZE = 8  # pixels; the graph scales the image up

Request = predict_pb2.PredictRequest | classification_pb2.ClassificationRequest
Response = TypeVar("Response")


def write(folder: str | os.PathLike) -> None:
    """Writes the records into a SavedModel's folder, in which `contract.EXTRA_FOLDER` must exist."""
    with tf.io.TFRecordWriter(os.fspath(path_of(folder))) as writer:
        for signature, count in itertools.product(contract.EXPORTED, BATCH_SIZES):
            writer.write(_record(signature, count).SerializeToString(deterministic=True))


def replay(
    folder: str | os.PathLike,
    predict: Callable[[predict_pb2.PredictRequest], Response],
    classify: Callable[[classification_pb2.ClassificationRequest], Response],
) -> Iterator[tuple[Request, Response]]:
    """Runs the requests in a version's folder, in order, and yields each with its response.

    It yields nothing for a folder without records, as another exporter may have written it.

    Args:
        folder: The version's folder.
        predict: Answers the requests for Predict.
        classify: Answers the requests for Classify.

    Raises:
        ValueError: There are more than MAX_RECORDS records, or a request of another kind.
        tf.errors.OpError, DecodeError: A record cannot be read.
    """
    path = path_of(folder)
    if not path.exists():
        return
    for number, data in enumerate(tf.data.TFRecordDataset(os.fspath(path)).as_numpy_iterator(), start=1):
        if number > MAX_RECORDS:
            raise ValueError(f"{path} holds more than {MAX_RECORDS} records.")
        log = prediction_log_pb2.PredictionLog.FromString(data)
        if log.HasField("predict_log"):
            yield log.predict_log.request, predict(log.predict_log.request)
        elif log.HasField("classify_log"):
            yield log.classify_log.request, classify(log.classify_log.request)
        else:
            kind = log.WhichOneof("log_type")
            raise ValueError(f"{path}: record {number} holds a {kind}; Predict and Classify can be replayed.")


def path_of(folder: str | os.PathLike) -> pathlib.Path:
    """The file of records in a version's folder."""
    return pathlib.Path(folder, contract.EXTRA_FOLDER, contract.WARMUP_NAME)


def encoded_image() -> bytes:
    """The image of the records: a JPEG file with every colour in it."""
    across, down = np.meshgrid(np.linspace(0, 255, _SIZE), np.linspace(0, 255, _SIZE))
    pixels = np.stack([across, down, 255 - across], axis=2).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def _example() -> tf.train.Example:
    image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded_image()]))
    return tf.train.Example(features=tf.train.Features(feature={contract.EXAMPLE_FEATURE: image}))


def _record(signature: contract.Signature, count: int) -> prediction_log_pb2.PredictionLog:
    log = prediction_log_pb2.PredictionLog()
    if signature == contract.CLASSIFY:
        request = log.classify_log.request
        request.input.example_list.examples.extend([_example()] * count)
    else:
        request = log.predict_log.request
        if signature.input == contract.IMAGES:
            values = np.repeat(read_image(encoded_image())[None].astype(np.float32), count, axis=0)
        else:
            values = [encoded_image()] * count
        request.inputs[signature.input.name].CopyFrom(tf.make_tensor_proto(values))
    request.model_spec.name, request.model_spec.signature_name = contract.MODEL_NAME, signature.name
    return log
