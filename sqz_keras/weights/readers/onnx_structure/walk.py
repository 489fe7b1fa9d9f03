"""From the steps of a graph to the layers of a SqueezeNet, fire module by fire module, whatever the names are."""

from __future__ import annotations

import dataclasses
import typing

from sqz_keras.weights.arrays import WeightsFileError
from sqz_keras.weights.readers.onnx_structure.network import Colours, Network, Step

_MOST_FIRES = 1000


@dataclasses.dataclass(frozen=True)
class Structure:
    """What a graph says about its network, apart from the weights.

    Args:
        convolutions: by our names, in net order; conv10 is missing if there is another head, and only the trunk was
            needed.
        pool_after: as in `Metaparameters`.
        bypasses: what goes around each fire module: None, "identity" or "convolution".
        conv10_padding: rows and columns of zeros around conv10's input.
        input_size: height and width of the input; None if they are not fixed, or differ.
        is_square: whether height and width may be equal.
        channels_last: whether feature maps are (N, H, W, C) between convolutions, as Keras has them.
        colours: what happens to an image before conv1.
        leaves_rest: whether a max pool rounds down, or may, where ours would round up, in ceil mode.
    """

    convolutions: dict[str, Step]
    pool_after: tuple[int, ...]
    bypasses: tuple[str | None, ...]
    conv10_padding: int
    input_size: int | None
    is_square: bool
    channels_last: bool
    colours: Colours
    leaves_rest: bool


def walk(network: Network, trunk_only: bool = False) -> Structure:
    """Walks a network from its input to its end.

    Args:
        network: the file's network.
        trunk_only: whether a head that is not a SqueezeNet's is accepted, and left out.

    Raises:
        WeightsFileError: the graph is not a SqueezeNet; the message names the node at which the walk stopped.
    """
    return _Walk(network).run(trunk_only)


class _Walk:
    def __init__(self, network: Network):
        self._network = network
        self._layers: dict[str, Step] = {}
        self._pools: list[int] = []
        self._bypasses: list[str | None] = []
        self._leaves_rest = False

    def run(self, trunk_only: bool) -> Structure:
        images, number = self._network.images, 1
        conv1 = self._only_user(images, "convolution", "conv1")
        if conv1.stride != 2 or conv1.pads != (0, 0, 0, 0) or len(set(conv1.kernel.shape[2:])) != 1:
            self._stop(conv1, "conv1: a square kernel, stride 2 and no padding")
        self._layers["conv1"] = conv1
        x = self._pooled(self._only_user(conv1, "relu", "conv1's ReLU"), number)
        while squeeze := self._squeeze(x):
            number += 1
            if number > _MOST_FIRES:
                self._stop(squeeze, f"at most {_MOST_FIRES} fire modules")
            x = self._pooled(self._fire_module(f"fire{number}", x, squeeze), number)
        if number == 1:
            self._stop(next(iter(x.users), None), "fire2: a squeeze and two expand convolutions")
        padding = self._head(x, trunk_only)
        size = set(images.size)
        return Structure(
            self._layers,
            tuple(self._pools),
            tuple(self._bypasses),
            padding,
            next(iter(size)) if len(size) == 1 else None,
            len(size - {None}) < 2,
            self._network.channels_last,
            self._network.colours,
            self._leaves_rest,
        )

    def _pooled(self, x: Step, number: int) -> Step:
        """The output of the max pool that follows, if one does."""
        if [user.kind for user in x.users] != ["max pool"]:
            return x
        self._pools.append(number)
        self._leaves_rest |= x.users[0].leaves_rest
        return x.users[0]

    def _squeeze(self, x: Step) -> Step | None:
        """The convolution whose output goes into several steps, if there is one."""
        found = [
            user
            for user in x.users
            if user.kind == "convolution"
            and [after.kind for after in user.users] == ["relu"]
            and len(user.users[0].users) > 1
        ]
        if len(found) > 1:
            self._stop(found[1], "one fire module after the other")
        return found[0] if found else None

    def _fire_module(self, name: str, x: Step, squeeze: Step) -> Step:
        self._check_1x1(squeeze, f"{name}_squeeze1x1")
        expands = squeeze.users[0].users
        expand1x1 = [step for step in expands if step.kind == "convolution" and step.kernel.shape[2:] == (1, 1)]
        expand3x3 = [step for step in expands if step.kind == "convolution" and step.kernel.shape[2:] == (3, 3)]
        if len(expands) != 2 or len(expand1x1) != 1 or len(expand3x3) != 1:
            wrong = next((step for step in expands if step not in expand1x1[:1] + expand3x3[:1]), None)
            self._stop(wrong, f"{name}: two expand convolutions, 1x1 and 3x3")
        self._check_1x1(expand1x1[0], f"{name}_expand1x1")
        if expand3x3[0].stride != 1 or expand3x3[0].pads != (1, 1, 1, 1):
            self._stop(expand3x3[0], f"{name}_expand3x3: stride 1 and a padding of 1")
        self._layers |= {f"{name}_squeeze1x1": squeeze, f"{name}_expand1x1": expand1x1[0]}
        self._layers[f"{name}_expand3x3"] = expand3x3[0]
        outputs = self._joined(name, expand1x1[0], expand3x3[0])
        return self._bypassed(name, x, squeeze, outputs)

    def _joined(self, name: str, expand1x1: Step, expand3x3: Step) -> Step:
        """Both halves, concatenated; the ReLUs come before or after."""
        halves = [self._only_user(expand, None, f"{name}: ReLUs") for expand in (expand1x1, expand3x3)]
        late = halves[0] is halves[1]
        if late:
            halves = [expand1x1, expand3x3]
        elif [half.kind for half in halves] != ["relu", "relu"]:
            self._stop(next(half for half in halves if half.kind != "relu"), f"{name}: ReLUs behind both expand layers")
        concat = self._only_user(halves[0], "concatenation", f"{name}: a concatenation of both expand layers")
        if concat.inputs != tuple(halves):
            self._stop(concat, f"{name}: expand1x1 before expand3x3, and nothing else")
        return self._only_user(concat, "relu", f"{name}: ReLUs behind both expand layers") if late else concat

    def _bypassed(self, name: str, x: Step, squeeze: Step, outputs: Step) -> Step:
        """The fire module's outputs, with the bypass added to them if there is one."""
        others = [user for user in x.users if user is not squeeze]
        if not others:
            self._bypasses.append(None)
            return outputs
        if len(others) > 1:
            self._stop(others[1], f"{name}: one bypass")
        source, kind = x, "identity"
        if others[0].kind == "convolution":
            self._check_1x1(others[0], f"{name}_bypass1x1")
            source, kind = self._only_user(others[0], "relu", f"{name}_bypass1x1: a ReLU"), "convolution"
            self._layers[f"{name}_bypass1x1"] = others[0]
        self._bypasses.append(kind)
        added = self._only_user(outputs, "addition", f"{name}: an addition of its bypass")
        if set(added.inputs) != {source, outputs}:
            self._stop(added, f"{name}: an addition of its bypass")
        return added

    def _head(self, x: Step, trunk_only: bool) -> int:
        """conv10, its ReLU and the average; or, with `trunk_only`, whatever head there is. Returns conv10's padding."""
        before = dict(self._layers)
        try:
            conv10 = self._only_user(x, "convolution", "conv10, or another fire module")
            if conv10.stride != 1 or conv10.kernel.shape[2:] != (1, 1) or len(set(conv10.pads)) != 1:
                self._stop(conv10, "conv10: a 1x1 convolution with the same padding on all sides")
            self._layers["conv10"] = conv10
            self._check_end(self._only_user(self._only_user(conv10, "relu", "conv10's ReLU"), "average", "the average"))
            self._check_all_walked(())
        except WeightsFileError:
            if not trunk_only:
                raise
            self._layers = before
            heads = [step for step in x.users if step.kind == "convolution" and step.kernel.shape[2:] == (1, 1)]
            self._check_all_walked(heads)
            return 0
        return int(conv10.pads[0])

    def _check_end(self, average: Step) -> None:
        steps = [average]
        for step in steps:  # they grow in the loop
            for user in step.users:
                if user.kind not in ("tail", "softmax"):
                    self._stop(user, "nothing but a softmax behind the average")
                steps.append(user)
        if set(steps).isdisjoint(self._network.ends):
            self._stop(next(iter(self._network.ends), None), "the average, or what is behind it, as an output")

    def _check_all_walked(self, heads: typing.Sequence[Step]) -> None:
        walked = set(self._layers.values()) | set(heads)
        for step in self._network.convolutions:
            if step not in walked:
                self._stop(step, "no other convolution")

    def _check_1x1(self, step: Step, name: str) -> None:
        if step.stride != 1 or step.pads != (0, 0, 0, 0) or step.kernel.shape[2:] != (1, 1):
            self._stop(step, f"{name}: a 1x1 convolution with stride 1 and no padding")

    def _only_user(self, step: Step, kind: str | None, expected: str) -> Step:
        """The one step that reads the output of `step`."""
        if len(step.users) != 1 or kind not in (None, step.users[0].kind):
            self._stop(next((user for user in step.users if user.kind != kind), None), expected, step)
        return step.users[0]

    def _stop(self, step: Step | None, expected: str, after: Step | None = None) -> typing.NoReturn:
        behind = f" behind {after.label}" if after else ""
        if step is None:
            several = after and len(after.users) > 1
            found = f"{len(after.users)} nodes, {after.users[1].label} for one" if several else "the end of the graph"
        else:
            found = f"{step.label}{f' ({step.reason})' if step.reason else ''}"
        raise WeightsFileError(
            f"{self._network.path}: the graph is not a SqueezeNet: expected {expected}{behind}, got {found}. Export "
            "the network as it was trained; for a head of another kind read the trunk alone (include_top=False)."
        )
