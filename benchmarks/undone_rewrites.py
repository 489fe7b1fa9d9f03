"""For serving_rewrites.py: the exported network with one rewrite undone, or all; `ExportedNetwork` has the rewrites."""

import tensorflow as tf

from export.graph.network import ExportedNetwork
from export.graph.tiles import Stage


class Variables(ExportedNetwork):
    def __init__(self, *args):
        super().__init__(*args)
        self._variables = {name: tf.Variable(array) for name, array in self._arrays.items()}

    def _weights(self):
        return {name: tf.identity(variable) for name, variable in self._variables.items()}


class Concatenated(ExportedNetwork):
    def _fire_module(self, *args):
        return [[tf.concat(halves, -1)] for halves in super()._fire_module(*args)]


class PaddedPools(ExportedNetwork):
    def _max_pool(self, parts, stage):
        def pool(half, bottom):
            padded = tf.pad(half, [[0, 0], [0, int(bottom)], [0, 1], [0, 0]])
            return tf.nn.max_pool2d(padded, 3, 2, "VALID")

        borders = stage.borders()
        return [[pool(half, borders[at][1]) for half in halves] for at, halves in enumerate(parts)]


class Undivided(ExportedNetwork):
    def _stages(self):
        return [Stage(stage.size, ((0, stage.size),)) for stage in super()._stages()]


class PaddedClassifier(ExportedNetwork):
    def _classify(self, weights, parts, size):
        border = self._spec.conv10_padding
        sums = []
        for at, halves in enumerate(parts):
            rows = [border * (at == 0), border * (at == len(parts) - 1)]
            padded = [tf.pad(half, [[0, 0], rows, [border, border], [0, 0]]) for half in halves]
            sums.append(tf.reduce_sum(self._conv_relu(weights, padded, "conv10"), [1, 2]))
        return tf.nn.softmax(tf.add_n(sums) / float((size + 2 * border) ** 2))


class Undone(Variables, Concatenated, PaddedPools, Undivided, PaddedClassifier):
    pass


BY_NAME = {
    "weights as variables": Variables,
    "halves concatenated": Concatenated,
    "pools with rows of zeros": PaddedPools,
    "whole maps, not tiles": Undivided,
    "conv10 over its border": PaddedClassifier,
}
