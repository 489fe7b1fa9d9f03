"""Choosing the codes of clustered weights again, with compensation: the last stage of `--method=finetune`."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.compression.compensation import round_to_nearest
from sqz_keras.compression.net_rounding import Rounding, check_inputs, kept_weights, round_net
from sqz_keras.models.squeezenet import build
from sqz_keras.weights.arrays import check_shapes

Arrays = dict[str, np.ndarray]


def choose_codes(
    spec: ModelSpec,
    arrays: Arrays,
    clustered: Arrays,
    images: np.ndarray,
    report: Callable[[str], None] = lambda message: None,
    layers: Collection[str] | None = None,
) -> Arrays:
    """Chooses the codes of clustered weights again, with compensation, so that the net answers more like another net.

    Args:
        spec: The model of both nets.
        arrays: The weights of the net to imitate.
        clustered: The clustered weights. Their kernels have few values, and the result has no others; zeros stay 0
            unless they are few.
        images: Float32 (N, S, S, C), as the network takes them, unlabelled.
        report: Called with a line of progress.
        layers: The layers whose codes are chosen; the others stay as they are in `clustered`. None means all layers.

    Returns:
        Float32 arrays; the biases of these layers correct the remaining errors of the mean outputs.

    Raises:
        ValueError: The arguments do not fit together.
    """
    check_inputs(spec, arrays, images)
    check_shapes("clustered", clustered, spec.weight_shapes())

    kept = {name: kept_weights(array) for name, array in clustered.items()}

    def kernel(name, weights, moments):
        values = np.unique(clustered[name]).astype(np.float64)
        borders = (values[1:] + values[:-1]) / 2

        def nearest(free):
            return values[np.searchsorted(borders, free)]

        return round_to_nearest(weights, kept[name], moments.inputs, moments.targets, nearest)

    fixed = {
        name: array for name, array in clustered.items() if layers is not None and name.rsplit("/", 1)[0] not in layers
    }
    rounding = Rounding(kernel, lambda name, bias: bias)
    rounded, _ = round_net(spec, arrays, build(spec, arrays), images, rounding, report, fixed)
    return rounded
