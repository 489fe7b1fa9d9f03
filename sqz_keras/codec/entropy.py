"""The zero-order entropy of a list of symbols."""

from __future__ import annotations

import numpy as np


def entropy_bits(counts: np.ndarray) -> float:
    """Total bits of a list of symbols at its zero-order entropy: the sum of `-count * log2(count / total)`.

    Args:
        counts: Integers (symbols,), how often each symbol occurs.
    """
    counts = counts[counts > 0].astype(np.float64)
    return float(0.0 - (counts * np.log2(counts / counts.sum())).sum()) if len(counts) else 0.0


def symbol_counts(symbols: np.ndarray) -> np.ndarray:
    """Int64 counts of the distinct symbols of an integer or float array."""
    return np.unique(symbols, return_counts=True)[1]
