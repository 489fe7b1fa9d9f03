"""One point of a sweep: the training and the measurements of its net."""

from __future__ import annotations

import json
import pathlib
import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sqz_keras.architecture import summary
from sqz_keras.architecture.spec import ModelSpec
from trainers.training.config import TrainConfig

if TYPE_CHECKING:
    import keras

COMPRESSED_BITS = 6  # of the k-means behind compressed_bytes
_LATENCY_CALLS = 30


def describe_net(spec: ModelSpec) -> dict[str, Any]:
    """The measures of a net that need no training.

    Returns:
        `parameters`, `bytes` (of float32 weights), `mebibytes`, `multiply_accumulates`, `peak_activation_bytes` and
        `receptive_field` (of conv10's outputs, in pixels).
    """
    parameters = spec.count_params()
    return {
        "parameters": parameters,
        "bytes": 4 * parameters,
        "mebibytes": round(4 * parameters / 2**20, 4),
        "multiply_accumulates": summary.count_multiply_accumulates(spec),
        "peak_activation_bytes": 4 * summary.peak_activations(spec),
        "receptive_field": spec.layers()[-2].receptive_field,
    }


def run_point(
    config: TrainConfig,
    folder: pathlib.Path,
    objectives: Sequence[str],
    data_dir: str | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> dict[str, Any]:
    """Trains the net of `config` in `folder`, exactly as sqz-train would, and measures it.

    A finished run in the folder is measured as it is; an unfinished one is resumed.

    Args:
        config: The run's config.
        folder: The run's workdir.
        objectives: Some of `OBJECTIVES`; `compressed_bytes` is measured only if it is among them.
        data_dir: TensorFlow Datasets' own folder.
        callbacks: Keras callbacks for the training.

    Returns:
        The fields of `describe_net`, `top1` (on the validation split, which a search may use), `test_top1`,
        `train_seconds`, `latency` (median seconds for one image, in this process) and, if requested,
        `compressed_bytes`.

    Raises:
        ValueError, Interrupted: As for `train_and_evaluate`.
    """
    from sqz_keras.weights.resolve import resolve_model
    from trainers.training.loop import train_and_evaluate

    done = folder / "evaluation.json"
    if done.exists():
        results = json.loads(done.read_text("utf-8"))
    else:
        results = train_and_evaluate(config, folder, data_dir, callbacks)
    spec, arrays = resolve_model(folder)
    measured = describe_net(spec) | {
        "top1": results["validation_top1_accuracy"],
        "test_top1": results["top1_accuracy"],
        "train_seconds": results["train_seconds"],
        "latency": measure_latency(spec, arrays),
    }
    if "compressed_bytes" in objectives:
        measured["compressed_bytes"] = compressed_bytes(spec, arrays)
    return measured


def measure_latency(spec: ModelSpec, arrays: dict[str, np.ndarray]) -> float:
    """Median seconds that the net takes for one image, as a `tf.function`, after a few calls to warm up."""
    import tensorflow as tf

    from sqz_keras.models.squeezenet import build

    model = build(spec, arrays)
    call = tf.function(lambda images: model(images, training=False), autograph=False)
    images = tf.zeros((1, spec.input_size, spec.input_size, spec.channels))
    seconds = []
    for number in range(_LATENCY_CALLS + 3):
        start = time.perf_counter()
        call(images).numpy()
        if number >= 3:
            seconds.append(time.perf_counter() - start)
    return round(statistics.median(seconds), 6)


def compressed_bytes(spec: ModelSpec, arrays: dict[str, np.ndarray]) -> int:
    """Bytes of the `.sqz` file after k-means with 6 bits, without fine-tuning."""
    from sqz_keras.compression.kmeans import kmeans
    from sqz_keras.weights import sqz

    shared = kmeans(arrays, COMPRESSED_BITS)
    return len(sqz.encode(spec, shared))
