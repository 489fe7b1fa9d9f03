"""A version's own requests, replayed before it is served, so that its first clients do not wait."""

from __future__ import annotations

import os

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from export import contract
from export.server.model import ServedVersion

MAX_RECORDS = 1000  # TensorFlow Serving's bound


def replay(model: ServedVersion, path: str | os.PathLike) -> int:
    """Runs the requests of a version's folder, if it holds any, and gives their number.

    Raises:
        ValueError: more than MAX_RECORDS, or requests of a kind that this server does not answer.
        RequestError, tf.errors.OpError, DecodeError: a record that cannot be read, or is refused.
    """
    file = os.path.join(path, contract.EXTRA_FOLDER, contract.WARMUP_NAME)
    if not os.path.exists(file):
        return 0
    count = 0
    for record in tf.data.TFRecordDataset(file):
        count += 1
        if count > MAX_RECORDS:
            raise ValueError(f"{file} holds more than {MAX_RECORDS} records.")
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        kind = log.WhichOneof("log_type")
        if kind == "predict_log":
            model.predict(log.predict_log.request)
        elif kind == "classify_log":
            model.classify(log.classify_log.request)
        else:
            raise ValueError(f"{file}: record {count} holds a {kind}; Predict and Classify can be replayed.")
    return count
