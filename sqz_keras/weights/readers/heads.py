"""Heads that are not named conv10: which of them is conv10, and what is left out if only the trunk is needed.

Fine-tuned nets often have a head with a new name ("conv10-new" in Caffe, where a layer is renamed to train it anew), or
a second head beside the first.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from sqz_keras.weights.arrays import WeightsFileError, fire_number

_REMEDY = "Read the trunk alone (include_top=False), or save the file with one head, called conv10"


def find_head(
    path: str | os.PathLike,
    others: Mapping[str, Sequence[int]],
    shapes: Mapping[str, Sequence[int]],
    trunk_only: bool,
) -> str | None:
    """Which of the layers with unknown names is conv10.

    Args:
        path: named in errors.
        others: kernel shape of each layer that is not one of ours, by its name in the file: (height, width, in, out),
            or (in, out) for a dense layer.
        shapes: shapes of the weights that have our names, kernels HWIO.
        trunk_only: whether no head is needed: all of them are left out, however many there are.

    Returns:
        A key of `others`, or None if `others` is empty, or `trunk_only` is set.

    Raises:
        WeightsFileError: a layer of `others` is not a head, it is not clear which one is conv10, or it is dense.
    """
    channels = _trunk_channels(shapes)
    inputs = {channels, *(shape[-1] for shape in others.values() if shape)}
    if "conv10/kernel" in shapes:
        inputs.add(shapes["conv10/kernel"][-1])
    for name, shape in others.items():
        if channels is None or not _is_head(shape, inputs):
            raise WeightsFileError(
                f"{path}: layer {name!r:.80} has weights of shape {list(shape)[:8]}, and no SqueezeNet has such a "
                "layer. Save the SqueezeNet in it alone."
            )
    if trunk_only or not others:
        return None
    names = ", ".join(f"{name!r:.80}" for name in list(others)[:4])
    if "conv10/kernel" in shapes:
        raise WeightsFileError(f"{path}: besides conv10 it has another head, {names}. {_REMEDY}.")
    if len(others) > 1:
        raise WeightsFileError(f"{path}: it has no conv10, and any of {names} could be its head. {_REMEDY}.")
    ((name, shape),) = others.items()
    if len(shape) != 4:
        raise WeightsFileError(
            f"{path}: its head {names} is a dense layer; SqueezeNet's is a 1x1 convolution and a ReLU before the "
            "average. Read the trunk alone (include_top=False)."
        )
    return name


def _trunk_channels(shapes: Mapping[str, Sequence[int]]) -> int | None:
    """The channels of the last fire module's output; None if they are unknown."""
    last = max(filter(None, map(fire_number, shapes)), default=None)
    if last is None:
        return None
    expands = [shapes.get(f"fire{last}_{part}/kernel", ()) for part in ("expand1x1", "expand3x3")]
    return sum(shape[-1] for shape in expands) if all(len(shape) == 4 for shape in expands) else None


def _is_head(shape: Sequence[int], inputs: set[int]) -> bool:
    return (len(shape) == 2 and shape[0] in inputs) or (len(shape) == 4 and shape[2] in inputs and shape[:2] == (1, 1))
