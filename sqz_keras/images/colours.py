"""Colours as arithmetic, numpy alone: what each mode of `preprocess_input` does to a channel, and the same in conv1."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sqz_keras.architecture.spec import ModelSpec

BGR_MEANS = {"authors": (104.0, 117.0, 123.0), "caffe": (103.939, 116.779, 123.68)}
TORCH_MEANS, TORCH_STDS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def colour_map(mode: str) -> tuple[tuple[int, ...], np.ndarray, np.ndarray]:
    """`preprocess_input` of a mode: its channel c is scale[c] * RGB[order[c]] + shift[c].

    Returns:
        order, three indices of RGB's channels; scale and shift, float32 (3,).
    """
    if mode in BGR_MEANS:
        order, scale, shift = (2, 1, 0), np.ones(3), -np.array(BGR_MEANS[mode])
    elif mode == "torch":
        order, scale, shift = (0, 1, 2), 1 / (255 * np.array(TORCH_STDS)), -np.divide(TORCH_MEANS, TORCH_STDS)
    else:
        order, scale, shift = (0, 1, 2), np.full(3, 1 / 127.5), -np.ones(3)
    return order, scale.astype(np.float32), shift.astype(np.float32)


def fold_colours(spec: ModelSpec, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights for RGB in 0..255: the order, scale and means of the colours go into conv1, which has no padding."""
    order, scale, shift = colour_map(spec.preprocessing.mode)
    kernel = arrays["conv1/kernel"].astype(np.float64)
    bias = arrays["conv1/bias"] + np.einsum("hwio,i->o", kernel, shift.astype(np.float64))
    folded = np.empty_like(kernel)
    folded[:, :, list(order)] = kernel * scale[:, None]
    return dict(arrays) | {"conv1/kernel": folded.astype(np.float32), "conv1/bias": bias.astype(np.float32)}
