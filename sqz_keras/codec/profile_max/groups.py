"""Counts and sums by group, such as by the row that an element is in."""

from __future__ import annotations

import numpy as np


def sum_by_group(group: np.ndarray, values: np.ndarray, groups: int) -> np.ndarray:
    """Adds up integers by group.

    Args:
        group: Integers (n,), the group of each value.
        values: Integers (n,), whose sums are below 2**53.
        groups: Number of groups.

    Returns:
        Int64 (groups,).
    """
    return np.bincount(group, values, minlength=groups).astype(np.int64)


def add_counts(counts: np.ndarray, group: np.ndarray, ones: np.ndarray) -> None:
    """Counts the elements of each group, and how many of them are 1.

    Args:
        counts: (2, groups), changed in place: the number of elements, and the number of ones.
        group: Integers (n,), the group of each element.
        ones: Integers, the indices of the elements that are 1.
    """
    counts[0] += np.bincount(group, minlength=counts.shape[1])
    counts[1] += np.bincount(group.take(ones), minlength=counts.shape[1])
