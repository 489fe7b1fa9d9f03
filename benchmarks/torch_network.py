"""The network in PyTorch, for speed comparisons: it computes what `sqz_keras.models.squeezenet.build` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch.nn import functional

from sqz_keras import ModelSpec
from sqz_keras.architecture.layers import IMAGES


def torch_network(spec: ModelSpec, arrays: Mapping[str, np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """A function from network inputs (N, S, S, 3) to probabilities (N, classes), on the processor."""
    # HWIO to PyTorch's OIHW.
    weights = {
        name: torch.from_numpy(np.ascontiguousarray(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array))
        for name, array in arrays.items()
    }
    layers = spec.layers()

    def apply(layer, inputs):
        if layer.kind == "convolution":
            kernel, bias = weights[f"{layer.name}/kernel"], weights[f"{layer.name}/bias"]
            return functional.relu(functional.conv2d(*inputs, kernel, bias, layer.stride, layer.padding))
        if layer.kind == "max pool":
            return functional.max_pool2d(*inputs, layer.kernel, layer.stride, ceil_mode=True)
        if layer.kind == "concatenation":
            return torch.cat(inputs, 1)
        if layer.kind == "addition":
            return inputs[0] + inputs[1]
        return inputs[0].mean((2, 3))

    @torch.inference_mode()
    def run(images):
        # A view as (N, 3, S, S), with the memory unchanged: PyTorch's channels_last.
        tensors = {IMAGES: torch.from_numpy(np.asarray(images)).permute(0, 3, 1, 2)}
        for layer in layers:
            tensors[layer.name] = apply(layer, [tensors[name] for name in layer.inputs])
        return functional.softmax(tensors[layers[-1].name], -1).numpy()

    return run
