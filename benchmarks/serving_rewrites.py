"""The gain of every rewrite of the exported network: the network as it is, and with one rewrite undone at a time.

    python benchmarks/serving_rewrites.py --image_dir=DIR [--model=imagenet] [--seconds=40]

Only the network runs, with a server's threads, on calls of 1, 8 and 32 prepared images; all variants run in turn.
Prints the median milliseconds per image and `gain=`: the time with the rewrite undone, divided by the time of the
network as it is.
"""

from __future__ import annotations

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np
from absl import flags

from benchmarks.serving_sides import second_call, use_threads_of_a_server
from benchmarks.serving_speed import BATCHES, find_enough_images, in_turn
from sqz_keras import command


def define_flags() -> None:
    command.define_model_flags()
    flags.DEFINE_string("image_dir", None, "Folder of images, at any depth.", required=True)
    flags.DEFINE_float("seconds", 40, "For each batch size.", lower_bound=1)


def main(argv) -> None:
    del argv
    from sqz_keras import prepare_images
    from sqz_keras.images.files import read_image
    from sqz_keras.weights.resolve import resolve_model

    args = flags.FLAGS
    paths = find_enough_images(args.image_dir, max(BATCHES))
    use_threads_of_a_server()
    spec, arrays = resolve_model(args.model, version=args.version, bypass=args.bypass)
    inputs = np.stack([prepare_images(read_image(path), spec) for path in paths])
    sides = {name: timed(run, inputs) for name, run in make_sides(spec, arrays).items()}
    for batch in BATCHES:
        milliseconds = in_turn(sides, batch, args.seconds)
        for name, median in milliseconds.items():
            gain = median / milliseconds["as exported"]
            print(f"batch {batch}, {name}: {median:.2f} ms an image, gain={gain:.2f}", flush=True)


def timed(run, inputs):
    return lambda count: second_call(run, inputs[:count])


def make_sides(spec, arrays) -> dict:
    """Functions from network inputs (N, S, S, 3) to probabilities (N, classes), by the name of the undone rewrite."""
    import tensorflow as tf

    from benchmarks import undone_rewrites as undone
    from export.graph.network import ExportedNetwork
    from export.graph.parts import run_in_parts

    def function(network, parts=True):
        size = spec.input_size
        inner = tf.function(
            network, input_signature=[tf.TensorSpec((None, size, size, 3), tf.float32)], autograph=False
        )
        run = tf.function(lambda images: run_in_parts(inner, images, spec), autograph=False) if parts else inner
        return lambda inputs: run(tf.constant(inputs))[0].numpy()

    sides = {"as exported": function(ExportedNetwork(spec, arrays))}
    sides |= {name: function(kind(spec, arrays)) for name, kind in undone.BY_NAME.items()}
    sides["all images of a call at once"] = function(ExportedNetwork(spec, arrays), parts=False)
    return sides | {"all of these": function(undone.Undone(spec, arrays), parts=False)}


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
