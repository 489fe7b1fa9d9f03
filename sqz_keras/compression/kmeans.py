"""Weight sharing by one-dimensional k-means, one codebook per layer (Deep Compression, arXiv 1510.00149, section 3).

K-means finds a local optimum that depends on the first centroids. These are spaced by a power of the weights' density:

- Exponent 0 spaces them evenly over [min, max]. In that paper this gave the best accuracy, and it gives the codes the
  least entropy. Large layers use it.
- Exponent 1/3 gives the least squared error (P. F. Panter and W. Dite, 1951), at a higher entropy. Small layers use an
  exponent a little above 0: they take few of the file's bytes, but their errors change the answers as much as those of
  large layers. With 6 bits on the authors' v1.0 this helps more than spending the same bytes on all layers.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sqz_keras.compression.bits import check_bits
from sqz_keras.compression.densities import count_nonzeros, layer_names

BITS = range(1, 17)
SMALL_LAYER = 1 / 16  # of the model's non-zero weights
SMALL_LAYER_EXPONENT = 0.1
_BINS = 64  # of the histogram that estimates the density
_MAX_ROUNDS = 1000  # Lloyd's algorithm ends by itself long before


def kmeans(arrays: Mapping[str, np.ndarray], bits: int | Mapping[str, int]) -> dict[str, np.ndarray]:
    """Gives the non-zero weights of each kernel at most 2**bits - 1 values; zeros stay zeros and take the last code.

    Args:
        arrays: Weights by name ("conv1/kernel", "conv1/bias", ...), float32.
        bits: Number of bits in a code, 1 to 16: for all layers, or by layer ("conv1"); other layers stay as they are.

    Returns:
        A new dict in the same order. Biases are untouched.

    Raises:
        ValueError: The bits are out of range, or a layer has no kernel among the arrays.
    """
    by_layer = check_bits(bits, layer_names(arrays), BITS)
    nonzeros = count_nonzeros(arrays)
    small = SMALL_LAYER * sum(nonzeros.values())
    shared = dict(arrays)
    for layer, number in by_layer.items():
        exponent = SMALL_LAYER_EXPONENT if nonzeros[layer] <= small else 0.0
        shared[f"{layer}/kernel"] = share_values(arrays[f"{layer}/kernel"], 2**number - 1, exponent)
    return shared


def share_values(kernel: np.ndarray, count: int, exponent: float = 0.0) -> np.ndarray:
    """The array with each non-zero value replaced by the nearest of at most `count` centroids.

    If there are no more than `count` different values, they stay as they are. A value that is not 0 never becomes 0,
    and -0.0 becomes 0.

    Args:
        kernel: Float32 of any shape.
        count: Number of centroids, at least 1.
        exponent: The first centroids are spaced by the density of the values to this power; 0 spaces them evenly.

    Returns:
        A new float32 array of the same shape.
    """
    kernel = kernel + np.float32(0)  # weights that a mask pruned may be -0.0, a value of its own in a file
    values, inverse, members = np.unique(kernel, return_inverse=True, return_counts=True)
    kept = values != 0
    if kept.sum() <= count:
        return kernel
    shared = values.astype(np.float32)
    shared[kept] = _nearest_centroids(values[kept].astype(np.float64), members[kept], count, exponent)
    return shared[inverse].reshape(kernel.shape)


def _nearest_centroids(values: np.ndarray, members: np.ndarray, count: int, exponent: float) -> np.ndarray:
    """The centroid of each of the sorted, distinct values, after Lloyd's algorithm.

    On sorted values a cluster is a range, so prefix sums give all means at once.
    """
    weights, sums = (np.concatenate([[0], np.cumsum(counts)]) for counts in (members, members * values))
    centroids = _first_centroids(values, members, count, exponent)
    borders = None
    for _ in range(_MAX_ROUNDS):
        midpoints = (centroids[1:] + centroids[:-1]) / 2
        moved = np.concatenate([[0], np.searchsorted(values, midpoints), [len(values)]])
        if borders is not None and np.array_equal(moved, borders):
            break
        borders = moved
        inside = np.diff(weights[borders])
        # A centroid without members stays where it is: it may get some when its neighbours move.
        centroids = np.where(inside > 0, np.diff(sums[borders]) / np.maximum(inside, 1), centroids)
    means = centroids.astype(np.float32)
    # A cluster around 0 may have the mean 0, which would be the code of pruned weights.
    means[means == 0] = np.finfo(np.float32).tiny
    return np.repeat(means, np.diff(borders))


def _first_centroids(values: np.ndarray, members: np.ndarray, count: int, exponent: float) -> np.ndarray:
    if exponent == 0:
        return np.linspace(values[0], values[-1], count)
    histogram, edges = np.histogram(values, _BINS, weights=members)
    steps = (histogram + 0.5) ** exponent  # half a value more, so that the centroids also reach across empty bins
    quantiles = np.append(0, np.cumsum(steps)) / steps.sum()
    return np.interp(np.linspace(0, 1, count), quantiles, edges)
