"""Writes models as one file for other runtimes, checked against Keras first.

`sqz_keras.runtimes` describes the input and output of the LiteRT and ONNX files. FILE.spec.json, beside FILE.suffix,
describes the images that the model takes and names its classes.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import sys
import tempfile
from collections.abc import Mapping, Sequence

import numpy as np

from sqz_keras import ModelSpec
from sqz_keras.files import check_writable, write_file
from sqz_keras.runtimes import run as runtimes

SUFFIXES = {
    "litert": ".tflite",
    "litert_float16": ".tflite",
    "litert_int8": ".tflite",
    "onnx": ".onnx",
    "keras": ".keras",
}
# Largest difference allowed between the file's probabilities and Keras's. In 8 bits, agreement is reported instead.
_TOLERANCES = {"litert": 1e-5, "litert_float16": 2e-2, "onnx": 1e-5, "keras": 1e-6}
_CHECKED_IMAGES = 4


def check_output(output: str | os.PathLike, format: str) -> None:
    """Refuses a file that cannot be written, or whose name would make readers take it for another format.

    Raises:
        ValueError: The file is refused.
    """
    suffix = SUFFIXES[format]
    if pathlib.Path(output).suffix.lower() != suffix:
        raise ValueError(f"--format={format} writes files that end in {suffix}, got --output={output}.")
    check_writable(output)


def write(
    format: str,
    spec: ModelSpec,
    arrays: Mapping[str, np.ndarray],
    output: str | os.PathLike,
    images: Sequence[pathlib.Path] = (),
) -> str:
    """Writes the file, and its description beside it. Both appear whole or not at all.

    Args:
        format: A key of `SUFFIXES`.
        spec: Describes the model.
        arrays: The model's weights by name, float32.
        output: The file; an older one is replaced.
        images: Images for 8 bits: one half calibrates, and the answers to the other half are compared with Keras's.

    Returns:
        How the file's answers compare with Keras's, in words.

    Raises:
        ValueError: The format cannot hold the model, or the file does not answer as Keras does; nothing is written.
        OSError: The file cannot be written.
    """
    from sqz_keras.weights.description import write_spec

    if spec.channels != 3:
        raise ValueError(f"These files take RGB images, 3 channels; this model takes {spec.channels}.")
    if format == "litert_int8":
        data, comparison = _calibrated(spec, arrays, images)
    else:
        data, comparison = _converted(format, spec, arrays)
    write_file(output, data)
    write_spec(output, spec, arrays)
    return comparison


def _converted(format: str, spec: ModelSpec, arrays: Mapping[str, np.ndarray]) -> tuple[bytes, str]:
    from sqz_keras.models import squeezenet
    from sqz_keras.runtimes import litert_file, onnx_file

    model = squeezenet.build(spec, dict(arrays))
    images = _images_to_check(spec)
    if format == "keras":
        (data, answers), by = _keras_file(model, spec, images), "read back"
    elif format == "onnx":
        data = onnx_file.convert(spec, arrays)
        if importlib.util.find_spec("onnxruntime") is None:
            return data, "not checked, as onnxruntime is not installed"
        answers, by = runtimes.run_onnx(data, images), "by onnxruntime"
    else:
        data = litert_file.convert(spec, arrays, float16=format == "litert_float16")
        answers, by = runtimes.run_litert(data, images), "by LiteRT"
    difference = float(np.abs(answers - run_keras(model, spec, images)).max())
    if not difference <= _TOLERANCES[format]:
        raise ValueError(
            f"The {format} file does not answer as Keras does: {by}, probabilities differ by {difference:.2g}, at most "
            f"{_TOLERANCES[format]:.0e} allowed. Nothing was written."
        )
    return data, f"{by}, probabilities within {difference:.1e} of Keras's"


def _images_to_check(spec: ModelSpec) -> np.ndarray:
    """Tiles of random colours, since real images are smooth: float32 (N, S, S, 3), RGB in 0..255."""
    tile = -(-spec.input_size // 8)
    colours = np.random.default_rng(0).uniform(0, 255, (_CHECKED_IMAGES, 8, 8, 3))
    images = colours.repeat(tile, axis=1).repeat(tile, axis=2).astype(np.float32)
    return images[:, : spec.input_size, : spec.input_size]


def run_keras(model, spec: ModelSpec, images: np.ndarray) -> np.ndarray:
    """The Keras model's probabilities (N, classes) for images (N, S, S, 3), RGB in 0..255."""
    from sqz_keras import preprocess_input

    inputs = preprocess_input(images, "channels_last", spec.preprocessing.mode)
    return np.concatenate([model.predict_on_batch(inputs[at : at + 32]) for at in range(0, len(inputs), 32)])


def _keras_file(model, spec: ModelSpec, images: np.ndarray) -> tuple[bytes, np.ndarray]:
    """A `.keras` file, and the answers of the model read back from it."""
    import keras

    from sqz_keras.weights.description import embed_spec

    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch, "model.keras")
        model.save(path)
        embed_spec(path, spec)
        return path.read_bytes(), run_keras(keras.saving.load_model(path), spec, images)


def _calibrated(spec: ModelSpec, arrays: Mapping[str, np.ndarray], paths: Sequence[pathlib.Path]) -> tuple[bytes, str]:
    """The model in 8 bits, and how often it agrees with Keras. Every other image calibrates; the rest are compared."""
    from export.formats import litert_int8
    from sqz_keras.compression.calibration_images import find_problems
    from sqz_keras.models import squeezenet

    images = read_images(paths, spec)
    model = squeezenet.build(spec, dict(arrays))
    classes = run_keras(model, spec, images[::2]).argmax(axis=1)
    for problem in find_problems(images[::2], classes):
        print(f"Warning: {problem}", file=sys.stderr)
    data = litert_int8.convert(spec, arrays, images[::2])
    unseen = images[1::2]
    expected = run_keras(model, spec, unseen)
    same = int((runtimes.run_litert(data, unseen).argmax(axis=1) == expected.argmax(axis=1)).sum())
    return data, f"agreement={same / len(unseen):.3f} with Keras on {len(unseen)} images that did not calibrate"


def read_images(paths: Sequence[pathlib.Path], spec: ModelSpec) -> np.ndarray:
    """The images that can be read, float32 (N, S, S, 3), RGB in 0..255; the others are named on stderr."""
    from sqz_keras.images import files
    from sqz_keras.images.preprocessing import resize_and_crop

    images = []
    for _, image, error in files.read_images(paths, lambda image: np.asarray(resize_and_crop(image, spec))):
        if error is None:
            images.append(image)
        else:
            print(f"Skipped: {error}", file=sys.stderr)
    if len(images) < 2:
        raise ValueError(f"Only {len(images)} of {len(paths)} images could be read; at least 2 are needed.")
    return np.stack(images)
