"""Float32 values as eight byte planes, which both profiles store next to the codes.

Planes 0 to 3 hold all arrays that are stored as floats. Planes 4 to 7 hold all codebooks: for each codebook its first
rank, then the differences between neighbouring ranks.
"""

from __future__ import annotations

import numpy as np

from sqz_keras.codec.errors import CodebookError
from sqz_keras.codec.values import ZERO_RANK, from_planes, from_ranks, to_planes, to_ranks

# Modes of a plane: bytes as they are, coded by the profile, or coded by the model of version 2 (profile `max` only).
RAW, CODED, MODELLED = 0, 1, 2
FLOAT_PLANES = 4  # the planes of floats come first
_RANK_OF_MINUS_INFINITY, _RANK_OF_INFINITY = (
    int(to_ranks(np.array([value], np.float32))[0]) for value in (-np.inf, np.inf)
)


def pack(floats: list[np.ndarray], codebooks: list[np.ndarray]) -> list[np.ndarray]:
    """Splits arrays and codebooks into the eight planes.

    Args:
        floats: Float32 arrays of any shape.
        codebooks: Float32 (values,) each, sorted by rank, without +0.0.

    Returns:
        Eight uint8 arrays; the first four have one length, the last four another.
    """
    float_planes = to_planes(np.concatenate([np.zeros(0, np.float32), *(array.ravel() for array in floats)]))
    differences = [np.diff(to_ranks(values).astype(np.int64), prepend=0) for values in codebooks if len(values)]
    joined = np.concatenate([np.zeros(0, np.int64), *differences])
    return [*float_planes, *((joined >> shift & 255).astype(np.uint8) for shift in (24, 16, 8, 0))]


def unpack_floats(planes: list[np.ndarray], sizes: list[int], offset: int) -> list[np.ndarray]:
    """Joins planes 0 to 3 into flat float32 arrays.

    Args:
        planes: The eight planes.
        sizes: Number of elements of each array.
        offset: Byte of the file to report in errors.

    Raises:
        CodebookError: A value is not finite.
    """
    values = from_planes(np.stack(planes[:4]))
    if not np.isfinite(values).all():
        raise CodebookError("A stored float is NaN or infinite", offset)
    return np.split(values, np.cumsum(sizes))[:-1]


def unpack_codebooks(planes: list[np.ndarray], sizes: list[tuple[int, int]], offset: int) -> list[np.ndarray]:
    """Joins planes 4 to 7 into codebooks of float32 values.

    Args:
        planes: The eight planes.
        sizes: For each codebook, the number of its values below +0.0 and above it.
        offset: Byte of the file to report in errors.

    Raises:
        CodebookError: Values are not finite, not distinct, or on the wrong side of zero.
    """
    joined = np.zeros(len(planes[4]), np.int64)
    for plane in planes[4:]:
        joined = joined << 8 | plane
    codebooks, start = [], 0
    for below, above in sizes:
        differences = joined[start : start + below + above]
        start += below + above
        ranks = np.cumsum(differences)
        if (differences[1:] == 0).any():
            raise CodebookError("A codebook's values are not distinct", offset)
        if len(ranks) and (ranks[0] <= _RANK_OF_MINUS_INFINITY or ranks[-1] >= _RANK_OF_INFINITY):
            raise CodebookError("A codebook's value is NaN or infinite", offset)
        if (ranks[:below] >= ZERO_RANK).any() or (ranks[below:] <= ZERO_RANK).any():
            raise CodebookError(
                f"The table declares {below} codebook values below zero and {above} above; the values differ", offset
            )
        codebooks.append(from_ranks(ranks.astype(np.uint32)))
    return codebooks
