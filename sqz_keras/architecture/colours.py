"""Colours as arithmetic: what each mode of `Preprocessing` does to a channel, and how conv1 can do the same."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sqz_keras.architecture.spec import ModelSpec

BGR_MEANS = {"authors": (104.0, 117.0, 123.0), "caffe": (103.939, 116.779, 123.68)}
TORCH_MEANS, TORCH_STDS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# By mode: order, scale and shift. Channel c of the network's input is scale[c] * RGB[order[c]] + shift[c], float64.
COLOURS = {
    **{mode: ((2, 1, 0), np.ones(3), -np.array(means)) for mode, means in BGR_MEANS.items()},
    "torch": ((0, 1, 2), 1 / (255 * np.array(TORCH_STDS)), -np.divide(TORCH_MEANS, TORCH_STDS)),
    "tf": ((0, 1, 2), np.full(3, 1 / 127.5), -np.ones(3)),
}


def fold_colours(spec: ModelSpec, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights for RGB in 0..255: colour order, scale and means go into conv1. It has no padding, so this is exact."""
    order, scale, shift = COLOURS[spec.preprocessing.mode]
    kernel = arrays["conv1/kernel"].astype(np.float64)
    bias = arrays["conv1/bias"] + np.einsum("hwio,i->o", kernel, shift)
    folded = np.empty_like(kernel)
    folded[:, :, list(order)] = kernel * scale[:, None]
    return dict(arrays) | {"conv1/kernel": folded.astype(np.float32), "conv1/bias": bias.astype(np.float32)}
