"""What a SqueezeNet is made of and costs, layer by layer, from its `ModelSpec` alone: Table 1 for any net."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping

from sqz_keras.architecture.spec import ModelSpec

# Weights and biases of AlexNet (Caffe's bvlc_alexnet): 243.9 MB in float32, which the paper calls 240 MB. Whatever this
# project calls "times smaller than AlexNet" is a multiple of it.
ALEXNET_PARAMETERS = 60_965_224
ALEXNET_BYTES = 4 * ALEXNET_PARAMETERS


@dataclasses.dataclass(frozen=True)
class Operation:
    """One step of the network, in the order in which it runs. A concatenation is none: both halves are its tensor.

    Args:
        name: of the Keras layer.
        row: of the table to which it belongs: "conv1", "pool1", "fire2", ...
        kind: "convolution", "max pool", "addition" or "average".
        inputs: names of the operations whose outputs it reads, and "images" for the input.
        size: height and width of its output, in pixels.
        channels: of its output.
        kernel: height and width of its window, in pixels.
        stride: in pixels.
        parameters: weights and biases.
        multiply_accumulates: of one image, biases not counted.
        receptive_field: side of the square of input pixels on which one output value depends.
    """

    name: str
    row: str
    kind: str
    inputs: tuple[str, ...]
    size: int
    channels: int
    kernel: int
    stride: int
    parameters: int
    multiply_accumulates: int
    receptive_field: int

    @property
    def values(self) -> int:
        """Output values of one image."""
        return self.size * self.size * self.channels


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """What the next operation reads: the names that make it up, and how its pixels lie on the input's."""

    names: tuple[str, ...]
    size: int
    channels: int
    field: int = 1  # receptive field
    jump: int = 1  # input pixels between two neighbours


class _Walk:
    """Goes through the network from the input on and takes down each operation."""

    def __init__(self, spec: ModelSpec):
        self.operations: list[Operation] = []
        self.tensor = _Tensor(("images",), spec.input_size, spec.channels)

    def add(self, name, row, kind, source: _Tensor, size, channels, kernel=1, stride=1, weights=0, reads=None):
        parameters = (weights + 1) * channels if weights else 0
        field = source.field + (kernel - 1) * source.jump
        names = source.names if reads is None else reads
        products = weights * channels * size * size
        self.operations.append(
            Operation(name, row, kind, names, size, channels, kernel, stride, parameters, products, field)
        )
        return _Tensor((name,), size, channels, field, source.jump * stride)

    def convolution(self, name, row, source: _Tensor, filters, kernel=1, stride=1, padding=0) -> _Tensor:
        size = (source.size + 2 * padding - kernel) // stride + 1
        return self.add(
            name, row, "convolution", source, size, filters, kernel, stride, kernel * kernel * source.channels
        )

    def pool(self, name: str) -> None:
        self.tensor = self.add(name, name, "max pool", self.tensor, self.tensor.size // 2, self.tensor.channels, 3, 2)

    def fire(self, fire, around: str | None) -> None:
        source, name = self.tensor, fire.name
        squeezed = self.convolution(f"{name}_squeeze1x1", name, source, fire.squeeze1x1)
        ones = self.convolution(f"{name}_expand1x1", name, squeezed, fire.expand1x1)
        threes = self.convolution(f"{name}_expand3x3", name, squeezed, fire.expand3x3, kernel=3, padding=1)
        self.tensor = dataclasses.replace(threes, names=ones.names + threes.names, channels=fire.channels)
        if around is None:
            return
        if around == "conv":
            source = self.convolution(f"{name}_bypass1x1", name, source, fire.channels)
        reads = source.names + self.tensor.names
        size, channels = self.tensor.size, self.tensor.channels
        self.tensor = self.add(f"{name}_add", name, "addition", self.tensor, size, channels, reads=reads)


def operations(spec: ModelSpec) -> tuple[Operation, ...]:
    """All operations of the network with its top, for one image of `spec.input_size` pixels.

    Raises:
        ValueError: the input is too small for the network.
    """
    net = spec.metaparameters
    if net.feature_size(spec.input_size) < 1:
        raise ValueError(f"input_size must be at least {net.min_input_size()} pixels, got {spec.input_size}.")
    walk = _Walk(spec)
    walk.tensor = walk.convolution("conv1", "conv1", walk.tensor, net.stem_filters, net.stem_kernel, 2)
    if 1 in net.pool_after:
        walk.pool("pool1")
    for fire, around in zip(net.fire_modules(), net.bypasses(spec.bypass), strict=True):
        walk.fire(fire, around)
        if fire.number in net.pool_after:
            walk.pool(f"pool{fire.number}")
    maps = walk.convolution("conv10", "conv10", walk.tensor, spec.classes, padding=spec.conv10_padding)
    walk.add("pool10", "pool10", "average", maps, 1, spec.classes, maps.size, maps.size)
    return tuple(walk.operations)


def count_multiply_accumulates(spec: ModelSpec) -> int:
    """Multiply-accumulates of one image, all convolutions."""
    return sum(operation.multiply_accumulates for operation in operations(spec))


def peak_activations(spec: ModelSpec) -> int:
    """The most values that must be held at once: what an operation reads and writes, and what waits for a later one.

    Operations run one after the other and none writes over its input; in float32 each value takes 4 bytes.
    """
    steps = operations(spec)
    values = {"images": spec.input_size**2 * spec.channels} | {step.name: step.values for step in steps}
    last_use = {name: place for place, step in enumerate(steps) for name in step.inputs}
    peak = 0
    made = {"images": -1} | {step.name: place for place, step in enumerate(steps)}
    for place in range(len(steps)):
        live = [name for name in made if made[name] <= place <= last_use.get(name, made[name])]
        peak = max(peak, sum(values[name] for name in live))
    return peak


def count_kept(spec: ModelSpec, densities: Mapping[str, float]) -> dict[str, int]:
    """Parameters of each convolution that pruning leaves: its kernel's share, rounded up, and all biases.

    Args:
        spec: of the network.
        densities: by layer ("conv1", "fire2_squeeze1x1", ...), shares in [0, 1]; what is not named stays whole.
    """
    shapes = spec.weight_shapes()
    kept = {}
    for name in (name.removesuffix("/kernel") for name in shapes if name.endswith("/kernel")):
        height, width, channels, filters = shapes[f"{name}/kernel"]
        weights = height * width * channels * filters
        kept[name] = math.ceil(weights * densities.get(name, 1.0) - 1e-6) + filters
    return kept


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of Table 1: a layer or a whole fire module. The fields are those of its last `Operation`, or their sums.

    Args:
        name: "conv1", "pool1", "fire2", ...
        size: see `Operation`.
        channels: see `Operation`; a fire module's are both expand layers'.
        window: what slides over the input, as "7x7/2"; "average" over all of it; "" for a fire module.
        filters: "squeeze1x1/expand1x1/expand3x3" of a fire module, else "".
        densities: shares that pruning leaves, in percent, in the order of the filters, else "".
        parameters: sum.
        kept: parameters after pruning.
        multiply_accumulates: sum.
        receptive_field: see `Operation`.
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
        spec: of the network.
        densities: see `count_kept`.
    """
    kept, rows = count_kept(spec, densities), []
    fires = {fire.name: fire for fire in spec.metaparameters.fire_modules()}
    for name, group in itertools.groupby(operations(spec), lambda step: step.row):
        steps = list(group)
        convolutions = [step for step in steps if step.kind == "convolution"]
        fire, last = fires.get(name), steps[-1]
        rows.append(
            Row(
                name,
                last.size,
                fire.channels if fire else last.channels,
                "" if fire else "average" if last.kind == "average" else f"{last.kernel}x{last.kernel}/{last.stride}",
                f"{fire.squeeze1x1}/{fire.expand1x1}/{fire.expand3x3}" if fire else "",
                "/".join(f"{100 * densities.get(step.name, 1.0):.0f}" for step in convolutions),
                sum(step.parameters for step in steps),
                sum(kept[step.name] for step in convolutions),
                sum(step.multiply_accumulates for step in steps),
                max(step.receptive_field for step in steps),
            )
        )
    return rows


def codebook_bytes(spec: ModelSpec, bits: int) -> int:
    """Bytes of weights as codes: `bits` a weight, 2**bits float32 values a layer, biases in float32."""
    total = 0
    for shape in spec.weight_shapes().values():
        count = math.prod(shape)
        total += math.ceil(bits * count / 8) + 4 * 2**bits if len(shape) == 4 else 4 * count
    return total
