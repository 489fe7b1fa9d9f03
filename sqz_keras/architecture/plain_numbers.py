"""Callers' numbers as plain Python numbers: NumPy's scalars count as numbers, True and False do not."""

from __future__ import annotations

import numbers


def as_integer(value: object) -> int | None:
    """The int that `value` is, NumPy's integers included; None if it is not an integer."""
    return int(value) if isinstance(value, numbers.Integral) and not isinstance(value, bool) else None


def as_number(value: object) -> float | None:
    """`value` as a float, NumPy's numbers and integers included; None if it is not a number."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer that no float can hold
        return None


def require_integer(name: str, value: object, least: int, most: int | None = None) -> int:
    """The int that `value` is.

    Raises:
        ValueError: It is not an integer, or below `least`, or above `most`; the message begins with `name`.
    """
    number = as_integer(value)
    if number is None or number < least or (most is not None and number > most):
        limit = "" if most is None else f" and at most {most:,}"
        raise ValueError(f"{name} must be an integer of at least {least}{limit}, got {value!r:.40}.")
    return number
