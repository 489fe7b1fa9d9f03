"""A known picture and its known answer, with which a device can check that a model works on it.

The picture is 8 x 8 random colours, each of which becomes a tile of the network's input. Picture and answer are a JSON
object, which the header of a `.sqz` file holds under the name `self_test`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sqz_keras.architecture.spec import ModelSpec

TOLERANCE = 0.02  # largest allowed difference of a probability; kernels in float16 change it by some thousandths
_SIDE, _CLASSES = 8, 5
_KEYS = {"tiles", "classes", "probabilities"}

Run = Callable[[np.ndarray], np.ndarray]  # images (N, S, S, 3), RGB in 0..255 -> probabilities (N, classes), float32


class SelfTestError(ValueError):
    """A model does not give the known answer, or its file has no valid self-test."""


def make(spec: ModelSpec, run: Run) -> dict[str, Any]:
    """The self-test of a model.

    Args:
        spec: Describes the model.
        run: Runs the model, in any runtime.

    Returns:
        `tiles`, the picture's RGB bytes in base64; `classes`, the indices of the most probable classes, and their
        `probabilities`.
    """
    tiles = np.random.default_rng(0).integers(0, 256, (_SIDE, _SIDE, 3), np.uint8)
    (probabilities,) = run(_picture(spec, tiles.tobytes()))
    classes = np.argsort(-probabilities, kind="stable")[:_CLASSES]
    return {
        "tiles": base64.b64encode(tiles.tobytes()).decode(),
        "classes": classes.tolist(),
        "probabilities": [round(float(probabilities[index]), 4) for index in classes],
    }


def check(self_test: object, spec: ModelSpec, run: Run) -> None:
    """Runs a model on the known picture.

    Args:
        self_test: What `make` returned for the model, as read from its file.
        spec: Describes the model.
        run: Runs the model as it will be used.

    Raises:
        SelfTestError: A probability differs by more than `TOLERANCE`, or `self_test` is not valid for this model.
    """
    tiles, classes, expected = _parse(self_test, spec)
    actual = run(_picture(spec, tiles))[0][classes]
    difference = float(np.abs(actual - expected).max())
    if not difference <= TOLERANCE:
        raise SelfTestError(
            f"The self-test failed: expected the probabilities {expected} of the classes {classes}, got "
            f"{[round(float(value), 4) for value in actual]}; at most {TOLERANCE} of difference is allowed."
        )


def _parse(self_test: object, spec: ModelSpec) -> tuple[bytes, list[int], list[float]]:
    if not isinstance(self_test, Mapping) or set(self_test) != _KEYS:
        raise SelfTestError("The file contains no self-test; make it with sqz-compress --self_test.")
    tiles, classes, probabilities = (self_test[name] for name in ("tiles", "classes", "probabilities"))
    try:
        tiles = base64.b64decode(tiles, validate=True)
        right = len(tiles) == 3 * _SIDE**2 and 1 <= len(classes) == len(probabilities)
        right = right and all(type(index) is int and 0 <= index < spec.classes for index in classes)
        right = right and all(type(value) is float and 0 <= value <= 1 for value in probabilities)
    except (binascii.Error, TypeError, ValueError) as error:
        raise SelfTestError(f"The file's self-test is malformed: {error!s:.100}.") from error
    if not right:
        raise SelfTestError("The file's self-test is malformed: its picture, classes or probabilities do not fit.")
    return tiles, list(classes), list(probabilities)


def _picture(spec: ModelSpec, tiles: bytes) -> np.ndarray:
    """Float32 (1, S, S, 3), RGB in 0..255."""
    size = spec.input_size
    places = np.arange(size) * _SIDE // size
    colours = np.frombuffer(tiles, np.uint8).reshape(_SIDE, _SIDE, 3)
    return colours[places][:, places][None].astype(np.float32)
