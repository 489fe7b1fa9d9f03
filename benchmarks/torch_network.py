"""The network in PyTorch, for comparisons of speed: the function of `sqz_keras.models.squeezenet.build`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch.nn import functional

from sqz_keras import ModelSpec


def torch_network(spec: ModelSpec, arrays: Mapping[str, np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """A function from network inputs (N, S, S, 3) to probabilities (N, classes), on the processor."""
    # HWIO to PyTorch's OIHW.
    weights = {
        name: torch.from_numpy(np.ascontiguousarray(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array))
        for name, array in arrays.items()
    }
    net = spec.metaparameters

    def conv_relu(x, layer, **options):
        return functional.relu(functional.conv2d(x, weights[f"{layer}/kernel"], weights[f"{layer}/bias"], **options))

    def pooled(x, number):
        return functional.max_pool2d(x, 3, 2, ceil_mode=True) if number in net.pool_after else x

    @torch.inference_mode()
    def run(inputs):
        # A view as (N, 3, S, S) of what stays in memory as it is: PyTorch's channels_last.
        x = torch.from_numpy(np.asarray(inputs)).permute(0, 3, 1, 2)
        x = pooled(conv_relu(x, "conv1", stride=2), 1)
        for fire, around in zip(net.fire_modules(), net.bypasses(spec.bypass), strict=True):
            squeezed = conv_relu(x, f"{fire.name}_squeeze1x1")
            expanded = [
                conv_relu(squeezed, f"{fire.name}_expand1x1"),
                conv_relu(squeezed, f"{fire.name}_expand3x3", padding=1),
            ]
            outputs = torch.cat(expanded, 1)
            if around is not None:
                outputs += conv_relu(x, f"{fire.name}_bypass1x1") if around == "conv" else x
            x = pooled(outputs, fire.number)
        x = conv_relu(x, "conv10", padding=spec.conv10_padding)
        return functional.softmax(x.mean((2, 3)), -1).numpy()

    return run
