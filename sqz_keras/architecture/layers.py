"""The layers of a SqueezeNet, in the order in which they run. All code that needs a net's layers reads this one list.

Weight shapes, the summary, the drawing, the ONNX file and the 8-bit preparation are interpretations of it. The Keras
model (`sqz_keras.models`) and the served network (`export.graph.network`) are written by hand, because people read
these two; tests compare them with the list.
"""

from __future__ import annotations

import dataclasses
import typing

from sqz_keras.architecture.metaparameters import FireFilters, Metaparameters

IMAGES = "images"  # the name of the network's input
BYPASSES = (None, "simple", "complex")
BYPASS_NAMES = tuple(bypass or "none" for bypass in BYPASSES)  # as flags and search spaces write them
FIRE_PARTS = ("squeeze1x1", "expand1x1", "expand3x3", "bypass1x1")  # convolutions of a fire module, in net order
Kind = typing.Literal["convolution", "max pool", "concatenation", "addition", "average"]


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of the network.

    Args:
        name: Name of the Keras layer, such as "fire2_squeeze1x1".
        kind: What the layer computes. A ReLU belongs to each convolution; "average" is global, and a softmax follows.
        block: Row of the paper's Table 1 to which the layer belongs: "conv1", "pool1", "fire2", ...
        inputs: Names of the layers whose outputs it reads; `IMAGES` is the network's input.
        kernel: Height and width of its window, in pixels.
        stride: Step of the window, in pixels.
        padding: Rows and columns of zeros on each side of the input. Max pools are in ceil mode instead.
        input_channels: Channels that it reads.
        size: Height and width of its output, in pixels.
        channels: Channels of its output.
        receptive_field: Side of the square of input pixels on which one output value depends.
    """

    name: str
    kind: Kind
    block: str
    inputs: tuple[str, ...]
    kernel: int
    stride: int
    padding: int
    input_channels: int
    size: int
    channels: int
    receptive_field: int

    @property
    def kernel_shape(self) -> tuple[int, int, int, int]:
        """Shape of a convolution's kernel: (height, width, input channels, filters)."""
        return self.kernel, self.kernel, self.input_channels, self.channels

    @property
    def parameters(self) -> int:
        """Number of weights and biases."""
        return (self.kernel**2 * self.input_channels + 1) * self.channels if self.kind == "convolution" else 0

    @property
    def multiply_accumulates(self) -> int:
        """Multiply-accumulates for one image; biases are not counted."""
        return self.kernel**2 * self.input_channels * self.values if self.kind == "convolution" else 0

    @property
    def values(self) -> int:
        """Number of output values for one image."""
        return self.size**2 * self.channels


def list_layers(
    net: Metaparameters,
    bypass: str | None,
    *,
    input_size: int,
    channels: int,
    classes: int,
    conv10_padding: int,
) -> tuple[Layer, ...]:
    """The layers of a network with its top (paper, Table 1 and figure 2).

    Args:
        net: The metaparameters.
        bypass: One of `BYPASSES`.
        input_size: Height and width of the input, in pixels. If the net needs a larger input, some sizes are below 1.
        channels: Channels of the input.
        classes: Number of classes.
        conv10_padding: Rows and columns of zeros around conv10's input.

    Raises:
        ValueError: `bypass` does not fit the metaparameters; see `bypass_kinds`.
    """
    builder = _ListBuilder(input_size, channels)
    last = builder.convolution("conv1", "conv1", IMAGES, net.stem_filters, kernel=net.stem_kernel, stride=2)
    if 1 in net.pool_after:
        last = builder.max_pool("pool1", last)
    for fire, kind in zip(net.fire_modules(), bypass_kinds(net, bypass), strict=True):
        last = builder.fire_module(fire, kind, last)
        if fire.number in net.pool_after:
            last = builder.max_pool(f"pool{fire.number}", last)
    last = builder.convolution("conv10", "conv10", last, classes, padding=conv10_padding)
    builder.average("pool10", last)
    return tuple(builder.layers.values())


def bypass_kinds(net: Metaparameters, bypass: str | None) -> tuple[str | None, ...]:
    """What goes around each fire module: None, "identity" or "convolution" (1x1, with a ReLU).

    A module whose input and output have the same number of channels gets an identity; the complex bypass puts a 1x1
    convolution around the other modules (paper, section 6 and figure 2).

    Raises:
        ValueError: `bypass` is unknown, or it is "simple" and no module's channels match.
    """
    if bypass not in BYPASSES:
        raise ValueError(f"bypass must be one of {BYPASSES}, got {bypass!r}.")
    kinds, channels = [], net.stem_filters
    for fire in net.fire_modules():
        other = "convolution" if bypass == "complex" else None
        kinds.append(None if bypass is None else "identity" if channels == fire.channels else other)
        channels = fire.channels
    if bypass == "simple" and not any(kinds):
        raise ValueError(
            "bypass='simple' needs a fire module with as many input as output channels, and these metaparameters "
            f"have none (freq={net.freq}, incr_e={net.incr_e}). Use freq >= 2, incr_e=0 or bypass='complex'."
        )
    return tuple(kinds)


@dataclasses.dataclass(frozen=True)
class _Output:
    """What a layer needs to know about its input: shape, receptive field, and the distance between its pixels."""

    size: int
    channels: int
    receptive_field: int = 1
    jump: int = 1  # input pixels between two neighbouring values


class _ListBuilder:
    """Appends layers by kind. Each method returns the name of the layer whose output the next layer reads."""

    def __init__(self, input_size: int, channels: int):
        self.layers: dict[str, Layer] = {}
        self._outputs = {IMAGES: _Output(input_size, channels)}

    def convolution(self, name, block, source, filters, kernel=1, stride=1, padding=0) -> str:
        size = (self._outputs[source].size + 2 * padding - kernel) // stride + 1
        return self._add(name, "convolution", block, (source,), size, filters, kernel, stride, padding)

    def max_pool(self, name, source) -> str:
        output = self._outputs[source]
        return self._add(name, "max pool", name, (source,), output.size // 2, output.channels, 3, 2)

    def average(self, name, source) -> str:
        output = self._outputs[source]
        return self._add(name, "average", name, (source,), 1, output.channels, output.size, output.size)

    def fire_module(self, fire: FireFilters, bypass: str | None, source: str) -> str:
        block, size = fire.name, self._outputs[source].size
        squeezed = self.convolution(f"{block}_squeeze1x1", block, source, fire.squeeze1x1)
        expanded = (
            self.convolution(f"{block}_expand1x1", block, squeezed, fire.expand1x1),
            self.convolution(f"{block}_expand3x3", block, squeezed, fire.expand3x3, kernel=3, padding=1),
        )
        last = self._add(f"{block}_concat", "concatenation", block, expanded, size, fire.channels)
        if bypass is None:
            return last
        if bypass == "convolution":
            source = self.convolution(f"{block}_bypass1x1", block, source, fire.channels)
        return self._add(f"{block}_add", "addition", block, (source, last), size, fire.channels)

    def _add(self, name, kind: Kind, block, inputs, size, channels, kernel=1, stride=1, padding=0) -> str:
        sources = [self._outputs[source] for source in inputs]
        jump = sources[0].jump  # the same for all inputs
        field = max(source.receptive_field for source in sources) + (kernel - 1) * jump
        input_channels = sum(source.channels for source in sources) if kind == "concatenation" else sources[0].channels
        self.layers[name] = Layer(
            name, kind, block, inputs, kernel, stride, padding, input_channels, size, channels, field
        )
        self._outputs[name] = _Output(size, channels, field, jump * stride)
        return name
