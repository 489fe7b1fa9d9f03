"""`preprocessing.resize_and_crop` in numpy alone, for runtimes without Keras."""

from __future__ import annotations

import numpy as np

from sqz_keras.architecture.spec import ModelSpec


def resize_and_crop(image: np.ndarray, spec: ModelSpec) -> np.ndarray:
    """Resizes an image bilinearly and cuts out its centre, as the spec's preprocessing says.

    Args:
        image: (H, W, 3), RGB in 0..255, any numeric dtype.
        spec: The spec of the model that takes it; S is its `input_size`.

    Returns:
        Float32 (S, S, 3), RGB in 0..255, not rounded.
    """
    size = image.shape[:2]
    rows, columns = (
        _weights(side, new, spec.input_size, spec.preprocessing.antialias)
        for side, new in zip(size, target_size(*size, spec), strict=True)
    )
    narrow = np.einsum("hwc,xw->hxc", image.astype(np.float32), columns, optimize=True)
    return np.einsum("hxc,yh->yxc", narrow, rows, optimize=True)


def target_size(height: int, width: int, spec: ModelSpec) -> tuple[int, int]:
    """(height, width) that the spec's preprocessing resizes an image to, before it cuts out the centre."""
    resize_to = spec.preprocessing.resize_to
    if spec.preprocessing.resize == "stretch":
        return resize_to, resize_to
    shortest = min(height, width)
    return height * resize_to // shortest, width * resize_to // shortest


def _weights(size: int, new_size: int, crop: int, antialias: bool) -> np.ndarray:
    """Float32 (crop, size): the weights of a line's `size` pixels in each of the central ones of `new_size` pixels.

    Bilinear: the weights form a triangle around the new pixel's place among the old ones. With `antialias`, the
    triangle is as wide as the new pixels if they are further apart than the old ones.
    """
    scale = size / new_size
    places = (np.arange(crop) + (new_size - crop) // 2 + 0.5) * scale - 0.5
    reach = max(scale, 1.0) if antialias else 1.0
    weights = np.maximum(0, 1 - np.abs(np.arange(size) - places[:, None]) / reach)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
