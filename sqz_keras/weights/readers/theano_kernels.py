"""Kernels of Keras 1 and of Keras on Theano: their axes are in another order, they are turned by 180 degrees, or both.

Keras 1 with `image_dim_ordering="th"` stored kernels as (filters, channels, rows, columns), which their shapes show.
Theano computes convolutions, every other backend correlations, so kernels that were trained on Theano have to be
turned. A file of Keras 2 names its backend. Among older files, Keras's own releases have "th_kernels" or "tf_kernels"
in their names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

import numpy as np

from sqz_keras.weights.arrays import WeightsFileError, layer_name

_IN_NAME = re.compile(r"(?<![a-z0-9])(th|tf)_kernels(?![a-z0-9])")  # not "with_kernels"


def to_hwio(
    path: str | os.PathLike, layers: Mapping[str, Sequence[np.ndarray]], backend: str | None
) -> dict[str, list[np.ndarray]]:
    """The layers with kernels in Keras's order, for correlations.

    Args:
        path: the file; its name may say whether its kernels are turned.
        layers: kernel and bias by the name of the layer, which is ours or unknown.
        backend: Keras's backend when the file was written, None if the file does not say.

    Raises:
        WeightsFileError: the kernels are in Theano's order, and nothing says whether they are turned.
    """
    ours = {name: arrays for name, arrays in layers.items() if layer_name(name) == name and len(arrays) == 2}
    theano_order = not all(_fits(name, *arrays, "hwio") for name, arrays in ours.items()) and all(
        _fits(name, *arrays, "oihw") for name, arrays in ours.items()
    )
    turned = _trained_on_theano(path, backend)
    if theano_order and turned is None:
        raise WeightsFileError(
            f"{path}: its kernels are in Theano's order, (filters, channels, rows, columns), and it does not say on "
            f"which backend they were trained. Copy it to a name that ends in _th_kernels.h5 if that was Theano, "
            "or in _tf_kernels.h5 if it was TensorFlow."
        )
    result = {}
    for layer, (*kernels, bias) in layers.items():
        if kernels and kernels[0].ndim == 4:
            kernel = kernels[0].transpose(2, 3, 1, 0) if theano_order else kernels[0]
            kernels[0] = kernel[::-1, ::-1] if turned else kernel
        result[layer] = [*kernels, bias]
    return result


def _trained_on_theano(path: str | os.PathLike, backend: str | None) -> bool | None:
    """Whether kernels were trained on Theano, by the file or else by its name; None if neither says."""
    if backend:
        return backend == "theano"
    named = set(_IN_NAME.findall(os.path.basename(path).lower()))
    return "th" in named if len(named) == 1 else None


def _fits(layer: str, kernel: np.ndarray, bias: np.ndarray, order: str) -> bool:
    """Whether a kernel has the layer's shape if its axes are in this order."""
    if kernel.ndim != 4 or bias.ndim != 1:
        return False
    *window, _, filters = kernel.shape if order == "hwio" else [kernel.shape[i] for i in (2, 3, 1, 0)]
    size = 3 if layer.endswith("3x3") else window[0] if layer == "conv1" else 1
    return filters == bias.size and window == [size, size]
