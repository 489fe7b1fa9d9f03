"""Runs the files of other runtimes on a CPU, each with its own package, which is imported only when it is needed."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from sqz_keras.quiet import filtered_stderr


def run_litert(data: bytes, images: np.ndarray) -> np.ndarray:
    """The answers of a `.tflite` file.

    Args:
        data: The whole file.
        images: (N, S, S, 3), RGB in 0..255.

    Returns:
        Probabilities, float32 (N, classes).

    Raises:
        ModuleNotFoundError: Neither ai-edge-litert nor TensorFlow is installed.
    """
    return litert_runner(data)(images)


def litert_runner(data: bytes) -> Callable[[np.ndarray], np.ndarray]:
    """The function from images to probabilities that `run_litert` calls, to call it several times."""
    interpreter = load_litert(data)
    (input,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(images: np.ndarray) -> np.ndarray:
        scores = []
        for image in images:
            interpreter.set_tensor(input["index"], image[None])
            interpreter.invoke()
            scores.append(interpreter.get_tensor(output["index"])[0])
        return np.stack(scores)

    return run


def load_litert(data: bytes):
    """An interpreter of a LiteRT file, with its tensors allocated: ai-edge-litert's, else TensorFlow's.

    Raises:
        ModuleNotFoundError: Neither is installed.
    """
    with filtered_stderr():
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ModuleNotFoundError as missing:
            try:
                import tensorflow as tf
            except ModuleNotFoundError:
                raise missing from None
            Interpreter = tf.lite.Interpreter  # noqa: N806
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # which says that TensorFlow's class moves to ai-edge-litert
            interpreter = Interpreter(model_content=data)
        interpreter.allocate_tensors()
    return interpreter


def run_onnx(data: bytes, images: np.ndarray) -> np.ndarray:
    """Probabilities (N, classes) of images (N, S, S, 3), RGB in 0..255, from the content of an `.onnx` file.

    Raises:
        ModuleNotFoundError: onnxruntime is not installed.
    """
    return onnx_runner(data)(images)


def onnx_runner(data: bytes) -> Callable[[np.ndarray], np.ndarray]:
    """The function from images to probabilities that `run_onnx` calls, to call it several times."""
    import onnxruntime

    from sqz_keras.runtimes.onnx_file import INPUT, OUTPUT

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return lambda images: session.run([OUTPUT], {INPUT: images})[0]
