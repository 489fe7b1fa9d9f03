"""Writes models as 8-bit LiteRT files with TensorFlow's converter; `sqz_keras.runtimes` writes the other files."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping

import numpy as np

from sqz_keras import ModelSpec
from sqz_keras.architecture.colours import fold_colours
from sqz_keras.models import squeezenet
from sqz_keras.quiet import filtered_stderr
from sqz_keras.runtimes import litert_metadata


def convert(spec: ModelSpec, arrays: Mapping[str, np.ndarray], images: np.ndarray) -> bytes:
    """The model in 8 bits, except for the last average and the softmax, which in 8 bits would make classes tie.

    The input's values become bytes without loss.

    Args:
        spec: Describes the model.
        arrays: Its weights by name, float32.
        images: About a hundred images for calibration, float32 (N, S, S, 3), RGB in 0..255.
    """
    import keras
    import tensorflow as tf

    from sqz_keras.compression import int8

    images = np.clip(images, 0, 255)
    model = squeezenet.build(spec, int8.prepare(spec, fold_colours(spec, arrays), images))
    for name in int8.clipped(spec):
        model.get_layer(name).activation = keras.activations.relu6
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    images[0, 0, 0] = 0, 255, 0  # so that the input's range is exactly a byte's
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=["MEAN", "SOFTMAX"])
    # The converter has no other way to leave an operation in float.
    with quiet():
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_dataset=converter.representative_dataset, debug_options=options
        )
        data = debugger.get_nondebug_quantized_model()
    return _with_metadata(data, spec)


def _with_metadata(data: bytes, spec: ModelSpec) -> bytes:
    """The file with the metadata and the names of the classes that `sqz_keras.runtimes` writes into the others."""
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(data))
    model.metadata = model.metadata or []
    for name, content in litert_metadata.entries(spec).items():
        buffer, entry = schema.BufferT(), schema.MetadataT()
        buffer.data = np.frombuffer(content, np.uint8)
        entry.name, entry.buffer = name, len(model.buffers)
        model.buffers.append(buffer)
        model.metadata.append(entry)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model)) + litert_metadata.labels_archive(spec)


@contextlib.contextmanager
def quiet():
    """Hides the list of all weights that TensorFlow prints, and its warnings about what is as intended."""
    with filtered_stderr(), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
