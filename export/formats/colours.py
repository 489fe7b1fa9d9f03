"""Input and output of the single-file formats, and the preprocessing of colours that becomes part of conv1.

Input `images`: RGB in 0..255, float32 (batch, S, S, 3), already of the network's size S; `resize_and_crop` brings an
image to that size as the ModelSpec says. Output `probabilities`: float32 (batch, classes).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sqz_keras import ModelSpec, preprocess_input

INPUT, OUTPUT = "images", "probabilities"


def colour_map(spec: ModelSpec) -> tuple[tuple[int, ...], np.ndarray, np.ndarray]:
    """`preprocess_input` as arithmetic: its channel c is scale[c] * RGB[order[c]] + shift[c]; float32 (channels,)."""

    def prepared(rgb) -> np.ndarray:
        return preprocess_input(np.array(rgb, np.float32).reshape(1, 1, 3), "channels_last", spec.preprocessing.mode)

    shift = prepared([0, 0, 0]).ravel()
    unit = np.stack([prepared(rgb).ravel() - shift for rgb in 255 * np.eye(3)])  # RGB channel, prepared channel
    order = tuple(int(channel) for channel in np.abs(unit).argmax(axis=0))
    return order, unit.max(axis=0) / np.float32(255), shift


def fold_colours(spec: ModelSpec, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights for RGB in 0..255: the order, scale and means of the colours go into conv1, which has no padding."""
    order, scale, shift = colour_map(spec)
    kernel = arrays["conv1/kernel"].astype(np.float64)
    bias = arrays["conv1/bias"] + np.einsum("hwio,i->o", kernel, shift.astype(np.float64))
    folded = np.empty_like(kernel)
    folded[:, :, list(order)] = kernel * scale[:, None]
    return dict(arrays) | {"conv1/kernel": folded.astype(np.float32), "conv1/bias": bias.astype(np.float32)}
