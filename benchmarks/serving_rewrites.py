"""The gain of every rewrite of the exported network: the network as it is, and with one rewrite undone at a time.

    python benchmarks/serving_rewrites.py --image_dir=DIR [--model=imagenet] [--seconds=40]

The network alone, on prepared images, 1, 8 and 32 in a call; all variants in turn in one run, medians. Prints
milliseconds an image and `gain=`: the time with the rewrite undone, divided by the time of the network as it is.
"""

from __future__ import annotations

import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

from absl import flags

from benchmarks.serving_speed import BATCHES, in_turn
from sqz_keras import command


def define_flags() -> None:
    command.define_model_flags()
    flags.DEFINE_string("image_dir", None, "Folder of images, at any depth.", required=True)
    flags.DEFINE_float("seconds", 40, "For each batch size.", lower_bound=1)


def main(argv) -> None:
    del argv
    import numpy as np

    from sqz_keras import prepare_images
    from sqz_keras.images.files import find_images, read_image
    from sqz_keras.weights.resolve import resolve_model

    args = flags.FLAGS
    spec, arrays = resolve_model(args.model, version=args.version, bypass=args.bypass)
    paths = find_images(args.image_dir, max(BATCHES))
    inputs = np.stack([prepare_images(read_image(path), spec) for path in paths])
    sides = make_sides(spec, arrays)
    for batch in BATCHES:
        milliseconds = in_turn(sides, inputs[:batch], args.seconds)
        for name, median in milliseconds.items():
            gain = median / milliseconds["as exported"]
            print(f"batch {batch}, {name}: {median:.2f} ms an image, gain={gain:.2f}", flush=True)


def make_sides(spec, arrays) -> dict:
    """Functions from network inputs (N, S, S, 3) to probabilities (N, classes), by the rewrite that is undone."""
    import tensorflow as tf

    from export.graph.network import ExportedNetwork
    from export.graph.parts import in_parts

    class Variables(ExportedNetwork):
        def __init__(self, *args):
            super().__init__(*args)
            self._variables = {name: tf.Variable(array) for name, array in arrays.items()}

        def _weights(self):
            return {name: tf.identity(variable) for name, variable in self._variables.items()}

    class Concatenated(ExportedNetwork):
        def _fire_module(self, *args):
            return [tf.concat(super()._fire_module(*args), -1)]

    class PaddedPools(ExportedNetwork):
        def _max_pool(self, half):
            return tf.nn.max_pool2d(tf.pad(half, [[0, 0], [0, 1], [0, 1], [0, 0]]), 3, 2, "VALID")

    class AtOnce(ExportedNetwork):
        def _after(self, tensor, earlier):
            return tensor

    class PaddedClassifier(ExportedNetwork):
        def _classify(self, weights, halves):
            border = [spec.conv10_padding] * 2
            halves = [tf.pad(half, [[0, 0], border, border, [0, 0]]) for half in halves]
            return tf.nn.softmax(tf.reduce_mean(self._conv_relu(weights, halves, "conv10"), [1, 2]))

    class Undone(Variables, Concatenated, PaddedPools, AtOnce, PaddedClassifier):
        pass

    def function(network, parts=True):
        size = spec.input_size
        inner = tf.function(
            network, input_signature=[tf.TensorSpec((None, size, size, 3), tf.float32)], autograph=False
        )
        run = tf.function(in_parts(inner, spec), autograph=False) if parts else inner
        return lambda inputs: run(tf.constant(inputs))[0].numpy()

    kinds = {
        "weights as variables": Variables,
        "halves concatenated": Concatenated,
        "pools with rows of zeros": PaddedPools,
        "both expand convolutions at once": AtOnce,
        "conv10 over its border": PaddedClassifier,
    }
    sides = {"as exported": function(ExportedNetwork(spec, arrays))}
    sides |= {name: function(kind(spec, arrays)) for name, kind in kinds.items()}
    sides["all images of a call at once"] = function(ExportedNetwork(spec, arrays), parts=False)
    return sides | {"all of these": function(Undone(spec, arrays), parts=False)}


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
