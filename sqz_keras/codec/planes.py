"""What stands beside the codes, alike in both profiles: raw floats and codebooks, as eight planes of bytes.

Planes 0 to 3 are those of all arrays that are stored as floats; planes 4 to 7 those of all codebooks, each codebook as
its first rank and the differences between neighbours.
"""

from __future__ import annotations

import numpy as np

from sqz_keras.codec.errors import CodebookError
from sqz_keras.codec.values import from_planes, from_ranks, to_planes, to_ranks

_LOWEST, _HIGHEST = (int(to_ranks(np.array([value], np.float32))[0]) for value in (-np.inf, np.inf))
_ZERO = 1 << 31


def pack(floats: list[np.ndarray], codebooks: list[np.ndarray]) -> list[np.ndarray]:
    """The eight planes, each uint8, of float32 arrays and of codebooks sorted by rank."""
    planes = to_planes(np.concatenate([np.zeros(0, np.float32), *(each.ravel() for each in floats)]))
    steps = [np.diff(to_ranks(values).astype(np.int64), prepend=0) for values in codebooks if len(values)]
    joined = np.concatenate([np.zeros(0, np.int64), *steps])
    return [*planes, *((joined >> shift & 255).astype(np.uint8) for shift in (24, 16, 8, 0))]


def unpack_floats(planes: list[np.ndarray], sizes: list[int], offset: int) -> list[np.ndarray]:
    """The float32 arrays, flat, of these sizes."""
    values = from_planes(np.stack(planes[:4]))
    if not np.isfinite(values).all():
        raise CodebookError("A stored float is NaN or infinite", offset)
    return np.split(values, np.cumsum(sizes))[:-1]


def unpack_codebooks(planes: list[np.ndarray], sizes: list[tuple[int, int]], offset: int) -> list[np.ndarray]:
    """The float32 values of codebooks of these numbers of values below and above +0.0."""
    joined = np.zeros(len(planes[4]), np.int64)
    for plane in planes[4:]:
        joined = joined << 8 | plane
    result, start = [], 0
    for below, above in sizes:
        ranks = np.cumsum(joined[start : start + below + above])
        start += below + above
        if (joined[start - below - above + 1 : start] == 0).any():
            raise CodebookError("A codebook's values are not distinct", offset)
        if len(ranks) and (ranks[0] <= _LOWEST or ranks[-1] >= _HIGHEST):
            raise CodebookError("A codebook's value is NaN or infinite", offset)
        if (ranks[:below] >= _ZERO).any() or (ranks[below:] <= _ZERO).any():
            raise CodebookError("A codebook's values are not on the sides of zero that its table says", offset)
        result.append(from_ranks(ranks.astype(np.uint32)))
    return result
