"""Bits of each layer's codes: given by the caller, or chosen for a file of a given size.

For a given size, most bits go to the layers in which rounding changes the answers most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sqz_keras import codec
from sqz_keras.architecture.plain_numbers import as_integer
from sqz_keras.compression.densities import layer_names
from sqz_keras.compression.grids import grid_steps, on_grid

Arrays = Mapping[str, np.ndarray]
CHOICES = range(3, 9)
_EARLY_COARSER = 1.4  # the best of five values for the authors' v1.0, with sensitivities of single weights


def check_bits(bits: int | Mapping[str, int], layers: Sequence[str], choices: range) -> dict[str, int]:
    """Bits by layer, from one number for all layers or from numbers for some; each must be one of the `choices`.

    Raises:
        ValueError: A layer is unknown, or a number is not one of the choices.
    """
    requested = bits if isinstance(bits, Mapping) else dict.fromkeys(layers, bits)
    by_layer = {layer: as_integer(number) for layer, number in requested.items()}
    for layer, number in by_layer.items():
        if layer not in layers:
            raise ValueError(f"bits: the model has no layer {layer!r}; its layers are {', '.join(layers)}.")
        if number not in choices:
            raise ValueError(f"bits must be {choices[0]} to {choices[-1]}, got {requested[layer]} for {layer}.")
    return by_layer


def bits_for_size(
    arrays: Arrays, sensitivity: Mapping[str, float], target_bytes: int, profile: str = "max"
) -> dict[str, int]:
    """Bits by layer, 3 to 8, with which weights rounded to evenly spaced values need about `target_bytes`.

    All layers start with the fewest bits. Then one bit at a time goes to the layer in which it removes the most damage
    per byte. The damage is the squared error of the weights, in units of the step that `quantize` would use for their
    layer.

    Args:
        arrays: Weights by name, float32.
        sensitivity: Sensitivity of each array, as `sensitivities` returns it.
        target_bytes: Target size of `codec.encode(round_evenly(arrays, bits), {}, profile=profile)`.
        profile: Profile of the file.

    Raises:
        ValueError: Even the fewest bits need more than `target_bytes`.
    """
    layers, steps = layer_names(arrays), grid_steps(sensitivity, 1.0, _EARLY_COARSER)
    damage, bytes_of = {}, {}
    for layer in layers:
        name = f"{layer}/kernel"
        for bits in CHOICES:
            rounded = round_evenly(arrays, {layer: bits})[name]
            error = np.sum((rounded - arrays[name]).astype(np.float64) ** 2)
            damage[layer, bits] = error / steps[name] ** 2 if steps[name] else 0.0
            bytes_of[layer, bits] = len(codec.encode({name: rounded}, {}, profile=profile))
    chosen = dict.fromkeys(layers, CHOICES[0])
    left = target_bytes - len(codec.encode(round_evenly(arrays, chosen), {}, profile=profile))
    if left < 0:
        raise ValueError(
            f"With {CHOICES[0]} bits for every layer the weights need {target_bytes - left} bytes; ask for more than "
            f"{target_bytes}, or give --bits by layer."
        )

    def cost(layer: str) -> int:
        return bytes_of[layer, chosen[layer] + 1] - bytes_of[layer, chosen[layer]]

    def gain(layer: str) -> float:
        return (damage[layer, chosen[layer]] - damage[layer, chosen[layer] + 1]) / max(cost(layer), 1)

    while affordable := [layer for layer in layers if chosen[layer] < CHOICES[-1] and cost(layer) <= left]:
        layer = max(affordable, key=gain)
        left -= cost(layer)
        chosen[layer] += 1
    return chosen


def round_evenly(arrays: Arrays, bits: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The arrays; kernels of the layers in `bits` are rounded to 2**bits - 1 evenly spaced values, one of them 0."""
    rounded = dict(arrays)
    for layer, number in bits.items():
        kernel = arrays[f"{layer}/kernel"]
        rounded[f"{layer}/kernel"] = on_grid(kernel, np.ptp(kernel) / (2**number - 2) or None)
    return rounded
