"""Milliseconds an image of the served model and of other ways to run the same net, on the same images.

    python benchmarks/serving_speed.py --image_dir=DIR [--model=imagenet] [--base_path=DIR] [--seconds=40]

All take images of the network's size, float32 RGB in 0..255, and give probabilities. Calls of 1, 8 and 32 images,
all runtimes in turn in one run, medians; `ratio=` is to onnxruntime. Prints what is required beside it, and how often a
runtime's top class is onnxruntime's. PyTorch is measured where it is installed. --base_path keeps the export for the
next run. TF_ENABLE_ONEDNN_OPTS=1 is the default here: TensorFlow does not choose it on a processor without AVX512.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

from absl import flags

from sqz_keras import command

BATCHES = (1, 8, 32)
REFERENCE, SAVED, BFLOAT16, SERVED = "onnxruntime", "SavedModel", "bfloat16", "sqz-serve"
# Largest ratio to onnxruntime's time, by batch; those of bfloat16 are for a processor with AMX.
REQUIRED_RATIOS = {SAVED: (1.3, 1.1, 1.1), BFLOAT16: (0.8, 0.5, 0.5)}
PAUSE_SECONDS = 0.1
REQUIRED_GRPC_MILLISECONDS = 1.5  # an image, more than the SavedModel's own call takes
REQUIRED_AGREEMENT = {SAVED: 1.0, BFLOAT16: 0.985}


def define_flags() -> None:
    command.define_model_flags()
    flags.DEFINE_string("image_dir", None, "Folder of images, at any depth.", required=True)
    flags.DEFINE_integer("images", 200, "At most so many of them.", lower_bound=max(BATCHES))
    flags.DEFINE_string("base_path", None, "Folder for the exported version; a temporary one where it is left out.")
    flags.DEFINE_float("seconds", 40, "For each batch size.", lower_bound=1)


def main(argv) -> None:
    del argv
    from benchmarks.serving_server import Server
    from export.client.client import Client
    from export.formats.single_file import read_images
    from sqz_keras.images.files import find_images
    from sqz_keras.weights.resolve import resolve_model

    args = flags.FLAGS
    spec, arrays = resolve_model(args.model, version=args.version, bypass=args.bypass)
    # Resizing rounds to as much as 255.00002, which the client refuses.
    images = read_images(find_images(args.image_dir, args.images), spec).clip(0, 255)
    resize = dataclasses.replace(spec.preprocessing, resize_to=spec.input_size)
    spec = dataclasses.replace(spec, preprocessing=resize)
    with tempfile.TemporaryDirectory() as scratch:
        base_path = pathlib.Path(args.base_path or scratch, "squeezenet")
        sides = make_sides(spec, arrays, base_path, pathlib.Path(scratch))
        server = Server(base_path, scratch)
        try:
            with Client(server.target) as client:
                sides[SERVED] = lambda batch: [prediction.probabilities for prediction in client.predict(batch)]
                report_agreement(sides, images)
                for column, batch in enumerate(BATCHES):
                    report_speed(in_turn(sides, images[:batch], args.seconds), batch, column)
        finally:
            server.stop()


def make_sides(spec, arrays, base_path: pathlib.Path, scratch: pathlib.Path) -> dict[str, Callable]:
    """Functions from images (N, S, S, 3) to probabilities (N, classes), by name."""
    import onnxruntime
    import tensorflow as tf

    from export import contract
    from export.formats.saved_model import export_saved_model
    from export.graph.signatures import ServedModel
    from export.versions import list_versions
    from sqz_keras import preprocess_input
    from sqz_keras.models import squeezenet
    from sqz_keras.runtimes import litert_file, onnx_file
    from sqz_keras.runtimes.onnx_file import INPUT, OUTPUT

    if not list_versions(base_path):
        export_saved_model(spec, arrays, base_path, 1)
    loaded = tf.saved_model.load(os.fspath(max(list_versions(base_path).items())[1]))
    labels_path = scratch / contract.LABELS_NAME
    labels_path.write_text("not read here\n")
    coarse = ServedModel(spec, arrays, labels_path, BFLOAT16)
    session = onnxruntime.InferenceSession(onnx_file.convert(spec, arrays), providers=["CPUExecutionProvider"])
    interpreter = tf.lite.Interpreter(model_content=litert_file.convert(spec, arrays), num_threads=os.cpu_count())
    (input,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    model = squeezenet.build(spec, arrays)

    def run_litert(images):
        if tuple(interpreter.get_input_details()[0]["shape"]) != images.shape:
            interpreter.resize_tensor_input(input["index"], images.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(input["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(output["index"])

    def prepared(images):
        return preprocess_input(images, "channels_last", spec.preprocessing.mode)

    probabilities = contract.PROBABILITIES.name
    serving_default = loaded.signatures[contract.SERVING_DEFAULT.name]
    sides = {
        REFERENCE: lambda images: session.run([OUTPUT], {INPUT: images})[0],
        SAVED: lambda images: serving_default(images=tf.constant(images))[probabilities].numpy(),
        BFLOAT16: lambda images: coarse.serving_default(tf.constant(images))[probabilities].numpy(),
        "LiteRT": run_litert,
        "Keras predict_on_batch": lambda images: model.predict_on_batch(prepared(images)),
    }
    if importlib.util.find_spec("torch"):
        from benchmarks.torch_network import torch_network

        network = torch_network(spec, arrays)
        sides["PyTorch"] = lambda images: network(prepared(images))
    return sides


def in_turn(sides: Mapping[str, Callable], images, seconds: float) -> dict[str, float]:
    """The median milliseconds an image of every runtime, which is called twice in a row: the second call counts.

    There is a pause before it, as the threads of some runtimes spin after a call and take time from the next runtime.
    """
    taken = {name: [] for name in sides}
    for run in sides.values():
        run(images)
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or min(map(len, taken.values())) < 3:
        for name, run in sides.items():
            time.sleep(PAUSE_SECONDS)
            run(images)
            start = time.perf_counter()
            run(images)
            taken[name].append(1000 * (time.perf_counter() - start) / len(images))
    return {name: statistics.median(times) for name, times in taken.items()}


def report_agreement(sides: Mapping[str, Callable], images) -> None:
    import numpy as np

    reference = None
    for name, run in sides.items():
        parts = [run(images[at : at + 32]) for at in range(0, len(images), 32)]
        classes = np.concatenate([np.argmax(part, axis=-1) for part in parts])
        reference = classes if reference is None else reference  # onnxruntime is the first
        share, least = float((classes == reference).mean()), REQUIRED_AGREEMENT.get(name)
        required = requirement(f"at least {least:.1%}", share >= least) if least else ""
        print(f"{name}: top-1 as {REFERENCE} on {share:.1%} of {len(images)}{required}", flush=True)


def report_speed(milliseconds: Mapping[str, float], batch: int, column: int) -> None:
    for name, median in milliseconds.items():
        ratio, required = median / milliseconds[REFERENCE], ""
        if name in REQUIRED_RATIOS:
            most = REQUIRED_RATIOS[name][column]
            required = requirement(f"at most {most:g}", ratio <= most)
        print(f"batch {batch}, {name}: {median:.2f} ms an image, ratio={ratio:.2f}{required}")
    more = milliseconds[SERVED] - milliseconds[SAVED]
    required = requirement(f"at most {REQUIRED_GRPC_MILLISECONDS:g}", more <= REQUIRED_GRPC_MILLISECONDS)
    print(f"batch {batch}, gRPC over the bare call: {more:.2f} ms an image{required}", flush=True)


def requirement(text: str, holds: bool) -> str:
    """What is required of a measurement, marked where it does not hold."""
    return f" (required: {text}{'' if holds else ', FAILED'})"


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
