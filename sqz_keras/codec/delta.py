"""Deltas: what an array has in common with the array of the same name in another file."""

from __future__ import annotations

import dataclasses

import numpy as np

from sqz_keras.codec.array_table import Kind, Row
from sqz_keras.codec.types import Codes, Shape
from sqz_keras.codec.values import MAX_CODES, Quantized, entropy

_MARGIN = 0.9  # of the plain codes' entropy, since the models do better on them than on moves


@dataclasses.dataclass(frozen=True)
class BaseArray:
    """An array of the base.

    Args:
        array: its values.
        codes: flat, or None where it has none.
    """

    array: np.ndarray
    codes: np.ndarray | None


def same(array: np.ndarray, base: BaseArray | None) -> bool:
    """Whether an array is the base's, bit for bit."""
    return (
        base is not None
        and array.shape == base.array.shape
        and np.array_equal(array.view(np.uint32), base.array.view(np.uint32))
    )


def moved(name: str, form: Quantized, base: BaseArray | None) -> tuple[Row, list[Codes]] | None:
    """The row and codes of an array as moves of the base's codes, or None where that does not pay."""
    if base is None or base.codes is None or form.codes.shape != base.array.shape:
        return None
    moves = form.codes.ravel().astype(np.int32) - base.codes
    parts = [moves[base.codes != 0], moves[base.codes == 0]]
    spans = tuple((int(part.min(initial=0)), int(part.max(initial=0))) for part in parts)
    if any(high - low >= MAX_CODES for low, high in spans):
        return None
    spent = sum(entropy(np.unique(part, return_counts=True)[1]) for part in parts)
    if spent >= _MARGIN * entropy(np.unique(form.codes, return_counts=True)[1]):
        return None
    kind = Kind.CODEBOOK_MOVED if form.step is None else Kind.GRID_MOVED
    codes = [Codes(part.astype(np.int16), Shape(part.shape, *span)) for part, span in zip(parts, spans, strict=True)]
    return Row(name, form.codes.shape, kind, form.low, form.high, spans), codes


def from_moves(used: np.ndarray, unused: np.ndarray, base_codes: np.ndarray) -> np.ndarray:
    """int32 codes from the moves where the base's codes are not 0, and where they are."""
    codes = base_codes.astype(np.int32)
    where = base_codes != 0
    codes[where] += used
    codes[~where] = unused
    return codes
