"""Trellis-coded quantisation: arrays on a grid whose integers follow a state machine with 8 states.

This is the dependent quantisation of ISO/IEC 15938-17. The integers of a filter (the last dimension of an array) depend
on a state: in an even state they are even, in an odd state odd. So a code has one bit fewer than its integer, and all
filters together fill space more densely than a plain grid does. Bit 1 of an integer selects the next state.

In a *dense* array every integer obeys its state, 0 included. In other arrays 0 is allowed in every state and does not
change the state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

STATES = 8
MAX_FILTER_ELEMENTS = 1 << 16  # limit for the elements of one filter, which are decoded one after the other

# Int64 (8, 2): the next state, given the state and bit 1 of the element's integer.
NEXT_STATE = np.array(
    [
        [(s >> 1 ^ s) & 1 | ((s >> 2 ^ bit) & 1) << 1 | (s & 1) << 2 for bit in (0, 1)]  # bits 0, 1 and 2
        for s in range(STATES)
    ]
)

# The class of an element says what it does to the state: _STAY, or 2 * (whether its code is positive) + parity of it.
_STAY = 4


def _steps(bits: np.ndarray) -> np.ndarray:
    """Returns uint8 (5 * 8,): the next state at index class * 8 + state, given bit 1 of the integer in each case."""
    states = np.arange(STATES)
    return np.append(NEXT_STATE[states, bits], [states], 0).astype(np.uint8).ravel()


# Bit 1 of the integer is the parity of the code c; but in arrays that are not dense, of c - 1 if c > 0 in an odd state.
_POSITIVE, _PARITY = np.divmod(np.arange(4)[:, None], 2)
_STEP = _steps(_PARITY)
_STEP_WITH_ZEROS = _steps(_PARITY ^ _POSITIVE & np.arange(STATES))


def fits(shape: tuple[int, ...]) -> bool:
    """Whether arrays of this shape can be on a trellis."""
    return len(shape) >= 2 and math.prod(shape[:-1]) <= MAX_FILTER_ELEMENTS


def by_filter(array: np.ndarray) -> np.ndarray:
    """Reshapes an array of at least 2 dimensions to (elements of a filter, filters)."""
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


def to_codes(integers: np.ndarray, dense: bool) -> np.ndarray | None:
    """Turns the integers of an array into codes.

    Args:
        integers: Integers (elements of a filter, filters).
        dense: Whether 0 obeys its state too.

    Returns:
        Int64 codes in the same shape, or None if an integer does not obey its state.
    """
    integers = integers.astype(np.int64)
    kinds = integers >> 1 & 1  # here the class is bit 1 of the integer itself
    if not dense:
        kinds[integers == 0] = _STAY
    parities, exempt = integers & 1, kinds == _STAY
    odd = np.zeros_like(integers)
    state = np.zeros(integers.shape[1], np.int64)
    for number, kind in enumerate(kinds):
        odd[number] = state & 1
        if ((parities[number] != odd[number]) & ~exempt[number]).any():
            return None
        state = _STEP.take(kind * STATES + state)
    return integers >> 1 if dense else (integers + odd * np.sign(integers)) >> 1


def from_codes(codes: Sequence[np.ndarray], dense: Sequence[bool]) -> list[np.ndarray]:
    """Turns the codes of arrays into integers. One call for many arrays is faster than a call for each.

    Args:
        codes: Integers (elements of a filter, filters) of each array, of at most 2**14 - 1 in magnitude.
        dense: Whether 0 obeys its state too, for each array.

    Returns:
        Int32 integers of each array, in its shape.
    """
    integers = [array.astype(np.int16) for array in codes]
    # Filters of about the same length, from one power of 2 to the next, are decoded together.
    groups: dict[tuple[int, bool], list[int]] = {}
    for number, array in enumerate(integers):
        if array.size:
            groups.setdefault((len(array).bit_length(), bool(dense[number])), []).append(number)
    for (_, is_dense), members in groups.items():
        odd = _odd_states([integers[number] for number in members], is_dense)
        for number, states in zip(members, odd, strict=True):
            array = integers[number]
            integers[number] = 2 * array + (states if is_dense else -np.sign(array) * states)
    return [array.astype(np.int32) for array in integers]


def _odd_states(codes: list[np.ndarray], dense: bool) -> list[np.ndarray]:
    """Returns a uint8 array in the shape of each array: 1 where the state is odd, else 0."""
    ends = np.cumsum([array.shape[1] for array in codes])
    steps = np.full((max(len(array) for array in codes), ends[-1]), _STAY * STATES, np.uint8)
    for array, end in zip(codes, ends, strict=True):
        kinds = (array & 1).astype(np.uint8)
        kinds += 2 * (array > 0).view(np.uint8)
        if not dense:
            kinds += _STAY * (array == 0).view(np.uint8)
        steps[: len(array), end - array.shape[1] : end] = kinds * np.uint8(STATES)
    table = _STEP if dense else _STEP_WITH_ZEROS
    state = np.zeros(ends[-1], np.uint8)
    for row in steps:
        row |= state
        state = table.take(row)
    steps &= 1
    return [steps[: len(array), end - array.shape[1] : end] for array, end in zip(codes, ends, strict=True)]
