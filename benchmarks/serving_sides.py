"""Ways to run the same net, each in a process of its own, for serving_speed.py.

A side's function takes images (N, S, S, 3), float32 RGB in 0..255, and returns probabilities (N, classes). It uses its
runtime's default threads, except that `SAVED` and `BFLOAT16` use a model server's threads, and `THREADS_APART` uses
those of sqz-serve.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import pathlib
import time
from collections.abc import Callable

import numpy as np

from sqz_keras.weights import sqz

REFERENCE, SAVED, BFLOAT16, SERVED = "onnxruntime", "SavedModel", "bfloat16", "sqz-serve"
DEFAULT_THREADS, THREADS_APART = "SavedModel, default threads", "SavedModel, a core for each thread"
IMAGES, MODEL, TARGET = "images.npy", "model.sqz", "target"  # files in the folder that the sides read
PAUSE_SECONDS = 0.1


class Side:
    """One of `SIDES` in a process of its own, which waits for requests.

    Args:
        name: The side's key in `SIDES`.
        folder: Holds `IMAGES`, `MODEL` and whatever else the side reads.
    """

    def __init__(self, name: str, folder: pathlib.Path):
        spawn = multiprocessing.get_context("spawn")
        self._connection, other = spawn.Pipe()
        self._process = spawn.Process(target=_answer, args=(other, name, folder), daemon=True)
        self._process.start()
        other.close()
        self._connection.recv()

    def probabilities(self, start: int, stop: int) -> np.ndarray:
        """The answers for the images from `start` to `stop`."""
        return self._ask((start, stop))

    def seconds(self, count: int) -> float:
        """How long a call with the first `count` images takes, after a call that is not timed."""
        return self._ask(count)

    def stop(self) -> None:
        self._connection.close()
        self._process.join()

    def _ask(self, question):
        self._connection.send(question)
        return self._connection.recv()


def second_call(run: Callable, images: np.ndarray) -> float:
    """Seconds that the second of two consecutive calls takes.

    There is a pause before both, as some runtimes' threads spin after a call and take time from the next runtime.
    """
    time.sleep(PAUSE_SECONDS)
    run(images)
    start = time.perf_counter()
    run(images)
    return time.perf_counter() - start


def _answer(connection: multiprocessing.connection.Connection, name: str, folder: pathlib.Path) -> None:
    images, run = np.load(folder / IMAGES), SIDES[name](folder)
    connection.send("ready")
    while True:
        try:
            question = connection.recv()
        except EOFError:
            return
        if isinstance(question, int):
            connection.send(second_call(run, images[:question]))
        else:
            connection.send(np.asarray(run(images[slice(*question)])))


def _model(folder: pathlib.Path):
    """The ModelSpec and the arrays."""
    model = sqz.read_model(folder / MODEL)
    return model.spec, model.arrays


def _onnxruntime(folder: pathlib.Path) -> Callable:
    from sqz_keras.runtimes.onnx_file import convert
    from sqz_keras.runtimes.run import onnx_runner

    return onnx_runner(convert(*_model(folder)))


def use_threads_of_a_server() -> None:
    """Gives TensorFlow the threads of a model server, in a process that has not used it yet."""
    import tensorflow as tf

    from export.server import threads

    tf.config.threading.set_intra_op_parallelism_threads(threads.INSIDE_AN_OPERATION)
    tf.config.threading.set_inter_op_parallelism_threads(threads.between_operations())


def _saved_model(folder: pathlib.Path, precision: str = "float32", like_a_server: bool = True) -> Callable:
    import tensorflow as tf

    from export import contract

    if like_a_server:
        use_threads_of_a_server()
    loaded = tf.saved_model.load(os.fspath(folder / precision / "1"))
    signature = loaded.signatures[contract.SERVING_DEFAULT.name]
    signature.loaded = loaded  # it must live as long as the signature
    return lambda images: signature(images=tf.constant(images))[contract.PROBABILITIES.name].numpy()


def _threads_apart(folder: pathlib.Path) -> Callable:
    from export.server import threads

    run = _saved_model(folder)
    threads.keep_apart()
    return run


def _litert(folder: pathlib.Path) -> Callable:
    import tensorflow as tf

    from sqz_keras.runtimes import litert_file

    content = litert_file.convert(*_model(folder))
    interpreter = tf.lite.Interpreter(model_content=content, num_threads=os.cpu_count())
    (input,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(images):
        if tuple(interpreter.get_input_details()[0]["shape"]) != images.shape:
            interpreter.resize_tensor_input(input["index"], images.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(input["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(output["index"])

    return run


def _keras(folder: pathlib.Path) -> Callable:
    from sqz_keras import preprocess_input
    from sqz_keras.models import squeezenet

    spec, arrays = _model(folder)
    model = squeezenet.build(spec, arrays)
    return lambda images: model.predict_on_batch(preprocess_input(images, "channels_last", spec.preprocessing.mode))


def _torch(folder: pathlib.Path) -> Callable:
    from benchmarks.torch_network import torch_network
    from sqz_keras import preprocess_input

    spec, arrays = _model(folder)
    network = torch_network(spec, arrays)
    return lambda images: network(preprocess_input(images, "channels_last", spec.preprocessing.mode))


def _served(folder: pathlib.Path) -> Callable:
    from export.client.client import Client

    client = Client((folder / TARGET).read_text())
    return lambda images: [prediction.probabilities for prediction in client.predict(images)]


SIDES: dict[str, Callable[[pathlib.Path], Callable]] = {
    REFERENCE: _onnxruntime,
    SAVED: _saved_model,
    THREADS_APART: _threads_apart,
    DEFAULT_THREADS: lambda folder: _saved_model(folder, like_a_server=False),
    BFLOAT16: lambda folder: _saved_model(folder, BFLOAT16),
    "LiteRT": _litert,
    "Keras predict_on_batch": _keras,
    "PyTorch": _torch,
    SERVED: _served,
}
