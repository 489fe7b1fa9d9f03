"""The steps of a network that an ONNX graph describes."""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Sequence

import numpy as np

from sqz_keras.weights.arrays import WeightsFileError
from sqz_keras.weights.readers.onnx_structure.constants import Constant, Constants

if typing.TYPE_CHECKING:
    import onnx

CHANNELS_FIRST = ("N", "C", "H", "W")
NO_PADS = (0, 0, 0, 0)
_TAKES_PADS = ("convolution", "max pool")


@dataclasses.dataclass(eq=False)
class Step:
    """One step of the network.

    Args:
        kind: "images", "convolution", "relu", "max pool", "average", "concatenation", "addition", "tail" (after the
            average, without weights), "softmax" (and what follows it) or "other".
        label: the node, for messages.
        inputs: the steps whose outputs it reads.
        size: height and width of its output; None if the file does not say.
        kernel: (out, in, height, width) of a convolution.
        bias: (out,) or any shape with as many values; None if there is none.
        stride: of a convolution.
        pads: zeros around the input of a convolution: top, left, bottom, right.
        leaves_rest: whether a max pool rounds down, or may, and so leaves out a last row or column of its input.
        biased_late: whether a node after the convolution adds the bias.
        reason: why an "other" step has none of the named kinds.
        users: the steps that read its output.
    """

    kind: str
    label: str
    inputs: tuple[Step, ...] = ()
    size: tuple[int | None, int | None] = (None, None)
    kernel: Constant | None = None
    bias: Constant | None = None
    stride: int = 1
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    leaves_rest: bool = False
    biased_late: bool = False
    reason: str = ""
    users: list[Step] = dataclasses.field(default_factory=list)


class Colours(typing.NamedTuple):
    """What the graph does to an image before conv1: channel c becomes scale[c] * input[order[c]] + shift[c]."""

    order: tuple[int, ...]
    scale: np.ndarray
    shift: np.ndarray


@dataclasses.dataclass(frozen=True)
class Data:
    """A tensor that depends on the images.

    `axes` says what each of its axes is: an axis of the graph's input (0 to 3) before the first convolution, a letter
    of "NCHW" after it. `pads` are zeros around it that are not yet part of a step. `colours` are operations on the
    channels of the images: the operation, the axis or None, the values. `biased` says that it includes a bias that is
    added after its convolution.
    """

    step: Step
    axes: tuple[int | str, ...]
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    colours: tuple[tuple[str, int | None, np.ndarray], ...] = ()
    biased: bool = False


class Network:
    """What is known about a network while its graph is read.

    Args:
        path: named in errors.

    Attributes:
        images: the first step.
        input_shape: the images' shape, in the graph's own order; None for a dimension that is not fixed.
        channels_last: whether ReLUs read (N, H, W, C).
        convolutions: all of them, in the order of the nodes.
        ends: the steps that make the graph's outputs.
        colours: what happens to an image before the first convolution.
        constants: makes and evaluates constants.
        values: each tensor by its name; None for one that is neither a constant nor depends on the images' values.
        uses: how often each tensor is read, or is an output of the graph.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = path
        self.images = Step("images", "")
        self.input_shape: tuple[int | None, ...] = ()
        self.channels_last = False
        self.convolutions: list[Step] = []
        self.ends: list[Step] = []
        self.colours: Colours | None = None
        self.constants = Constants(path)
        self.values: dict[str, Constant | Data | None] = {"": None}
        self.uses: dict[str, int] = {}

    def define(self, name: str, value: Constant | Data | None) -> None:
        """Records a tensor by its name.

        Raises:
            WeightsFileError: another tensor has this name.
        """
        if name in self.values:
            raise WeightsFileError(f"{self.path}: two tensors are called {name!r:.80}; the file is damaged.")
        self.values[name] = value

    def add_step(self, kind, node, sources: Sequence[Data], axes=CHANNELS_FIRST, **fields) -> Data:
        """A new step, and the tensor that it makes."""
        if kind != "other" and any(source.pads != NO_PADS for source in sources) and kind not in _TAKES_PADS:
            kind, fields = "other", {"reason": "zeros are put around its input"}
        if any(source.step.biased_late and not source.biased for source in sources):
            kind, fields = "other", {"reason": "it reads a convolution without the bias that is added behind it"}
        fields.setdefault("size", sources[0].step.size)
        step = Step(kind, label(node), tuple(source.step for source in sources), **fields)
        for source in dict.fromkeys(step.inputs):
            source.users.append(step)
        if kind == "convolution":
            self.convolutions.append(step)
        return Data(step, axes)


def label(node: onnx.NodeProto) -> str:
    """What messages call a node: its operator and its name, or its output's name."""
    name = node.name or (node.output[0] if node.output else "")
    return f"{node.op_type[:40]} {name!r:.80}"
