"""What a LiteRT file says to MediaPipe Tasks and Android's tools: how it takes images, and the names of its classes.

The numbers below are those of the public schema, metadata_schema.fbs: a table's fields are numbered from 0 in the order
of their declarations, and a union takes two fields, its type and its value. The names of the classes are a text file in
a zip archive, which follows the model in the same file.
"""

from __future__ import annotations

import io
import zipfile

import numpy as np

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.runtimes import flatbuffer
from sqz_keras.weights.description import SPEC_KEY, spec_text

_NAME = "TFLITE_METADATA"
_IDENTIFIER = b"M001"
_PARSER_VERSION = "1.0.0"
_LABELS, _LABELS_OF_AN_AXIS = "labels.txt", np.int8(2)
_IMAGE, _RGB = np.uint8(2), np.int8(1)
_NORMALISATION = np.uint8(1)


def entries(spec: ModelSpec) -> dict[str, bytes]:
    """The entries of a file's metadata by name: the ModelSpec as JSON, and what other programs look for."""
    return {SPEC_KEY: spec_text(spec).encode(), _NAME: _for_others()}


def _for_others() -> bytes:
    """That the input is RGB in 0..255, as everything else is part of the graph, and where the classes' names are."""
    unchanged = {0: np.zeros(1, np.float32), 1: np.ones(1, np.float32)}  # (value - mean) / std
    images = {
        0: "images",
        1: "RGB in 0..255",
        3: {0: _IMAGE, 1: {0: _RGB}},
        4: [{0: _NORMALISATION, 1: unchanged}],
        5: {0: np.full(1, 255, np.float32), 1: np.zeros(1, np.float32)},
    }
    probabilities = {0: "probabilities", 6: [{0: _LABELS, 2: _LABELS_OF_AN_AXIS}]}
    model = {0: "SqueezeNet", 3: [{2: [images], 3: [probabilities]}], 7: _PARSER_VERSION}
    return flatbuffer.write_root(model, _IDENTIFIER, 0)


def labels_archive(spec: ModelSpec) -> bytes:
    """What follows the model in its file: the archive with the names of the classes, one a line."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        # Stored, since MediaPipe reads it in place; with a fixed date, so that the same model gives the same bytes.
        file.writestr(zipfile.ZipInfo(_LABELS), "".join(f"{name}\n" for name in spec.class_names()))
    return archive.getvalue()
