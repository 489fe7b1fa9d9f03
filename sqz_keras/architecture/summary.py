"""What a SqueezeNet is made of and costs, layer by layer, from its `ModelSpec` alone: Table 1 for any net."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping

from sqz_keras.architecture.layers import IMAGES, Layer
from sqz_keras.architecture.spec import ModelSpec

# Weights and biases of AlexNet (Caffe's bvlc_alexnet): 243.9 MB in float32, which the paper calls 240 MB. Every "times
# smaller than AlexNet" in this project refers to it.
ALEXNET_PARAMETERS = 60_965_224
ALEXNET_BYTES = 4 * ALEXNET_PARAMETERS


def checked_layers(spec: ModelSpec) -> tuple[Layer, ...]:
    """The layers of a network, after a check that its input is large enough.

    Raises:
        ValueError: The input is too small for the network.
    """
    least = spec.metaparameters.min_input_size()
    if spec.input_size < least:
        raise ValueError(f"input_size must be at least {least} pixels, got {spec.input_size}.")
    return spec.layers()


def count_multiply_accumulates(spec: ModelSpec) -> int:
    """Multiply-accumulates of all convolutions for one image."""
    return sum(layer.multiply_accumulates for layer in checked_layers(spec))


def peak_activations(spec: ModelSpec) -> int:
    """The largest number of values that must be in memory at once, for one image.

    It counts what a layer reads and writes, and what is kept for a later layer. Layers run one after the other, no
    layer overwrites its input, and a concatenation takes no memory of its own. In float32 each value takes 4 bytes.
    """
    layers = checked_layers(spec)
    parts = {layer.name: layer.inputs for layer in layers if layer.kind == "concatenation"}
    steps = [layer for layer in layers if layer.name not in parts]
    values = {IMAGES: spec.input_size**2 * spec.channels} | {step.name: step.values for step in steps}
    made = {IMAGES: -1} | {step.name: place for place, step in enumerate(steps)}
    last_use = dict(made)
    for place, step in enumerate(steps):
        for name in step.inputs:
            last_use |= dict.fromkeys(parts.get(name, (name,)), place)
    return max(
        sum(values[name] for name in made if made[name] <= place <= last_use[name]) for place in range(len(steps))
    )


def count_kept(spec: ModelSpec, densities: Mapping[str, float]) -> dict[str, int]:
    """The parameters that pruning leaves in each convolution: its share of the kernel, rounded up, and all biases.

    Args:
        spec: The network.
        densities: Densities in [0, 1] by layer ("conv1", "fire2_squeeze1x1", ...); other layers are not pruned.
    """
    kept = {}
    for layer in spec.layers():
        if layer.kind == "convolution":
            weights = math.prod(layer.kernel_shape)
            kept[layer.name] = math.ceil(weights * densities.get(layer.name, 1.0) - 1e-6) + layer.channels
    return kept


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of Table 1: a layer or a whole fire module. Fields are those of its last `Layer`, or sums over its layers.

    Args:
        name: "conv1", "pool1", "fire2", ...
        size: See `Layer`.
        channels: See `Layer`; for a fire module, the channels of both expand layers together.
        window: Kernel size and stride, such as "7x7/2"; "average" for the global average; "" for a fire module.
        filters: A fire module's filters as "squeeze1x1/expand1x1/expand3x3", else "".
        densities: Shares of the weights that pruning leaves, in percent, one per convolution; "" if there is none.
        parameters: Sum over the layers.
        kept: Parameters after pruning.
        multiply_accumulates: Sum over the layers.
        receptive_field: See `Layer`.
    """

    name: str
    size: int
    channels: int
    window: str
    filters: str
    densities: str
    parameters: int
    kept: int
    multiply_accumulates: int
    receptive_field: int


def table(spec: ModelSpec, densities: Mapping[str, float]) -> list[Row]:
    """The rows of Table 1 for any network, in its order.

    Args:
        spec: The network.
        densities: See `count_kept`.
    """
    kept, rows = count_kept(spec, densities), []
    for name, group in itertools.groupby(checked_layers(spec), lambda layer: layer.block):
        layers = list(group)
        convolutions = [layer for layer in layers if layer.kind == "convolution"]
        last, is_fire = layers[-1], any(layer.kind == "concatenation" for layer in layers)
        window = "average" if last.kind == "average" else f"{last.kernel}x{last.kernel}/{last.stride}"
        rows.append(
            Row(
                name,
                last.size,
                last.channels,
                "" if is_fire else window,
                "/".join(str(layer.channels) for layer in convolutions[:3]) if is_fire else "",
                "/".join(f"{100 * densities.get(layer.name, 1.0):.0f}" for layer in convolutions),
                sum(layer.parameters for layer in layers),
                sum(kept[layer.name] for layer in convolutions),
                sum(layer.multiply_accumulates for layer in layers),
                max(layer.receptive_field for layer in layers),
            )
        )
    return rows


def codebook_bytes(spec: ModelSpec, bits: int) -> int:
    """Bytes of weights stored as codes: `bits` per weight, 2**bits float32 values per layer, biases in float32."""
    total = 0
    for shape in spec.weight_shapes().values():
        count = math.prod(shape)
        total += math.ceil(bits * count / 8) + 4 * 2**bits if len(shape) == 4 else 4 * count
    return total
