"""Two methods for tfmot's `ClusteringAlgorithm` that are as fast with 256 centroids as with few.

As shipped, tfmot compares each weight with each centroid in every call, and returns the centroids' gradient with one
entry per weight. These methods find the nearest centroid by binary search and sum the gradient directly.
"""

from __future__ import annotations

import contextlib
import types
import unittest.mock
import warnings
from collections.abc import Iterator

import numpy as np

_PATCHED_VERSION = "0.8.1"


@contextlib.contextmanager
def sorted_search(tfmot: types.ModuleType) -> Iterator[bool]:
    """While the context is open, tfmot clusters with the methods below; graphs traced in it keep them.

    With tfmot 0.8.1's own methods, a step with 256 centroids takes several times as long and twice the memory. The
    replacement affects the whole process. If tfmot has another version, or its methods give other results on a sample,
    nothing is replaced and a warning says so.

    Yields:
        Whether the methods below are in use.
    """
    algorithm = tfmot.clustering.keras.ClusteringAlgorithm
    if tfmot.__version__ != _PATCHED_VERSION:
        reason = f"tensorflow-model-optimization is {tfmot.__version__}, and what is known is {_PATCHED_VERSION}"
    elif not same_answers(algorithm):
        reason = "its answers on a sample are not those of tensorflow-model-optimization"
    else:
        with unittest.mock.patch.multiple(
            algorithm, get_pulling_indices=get_pulling_indices, get_clustered_weight=get_clustered_weight
        ):
            yield True
        return
    warnings.warn(f"Clustering runs without sorted search, and is slow with many clusters: {reason}.", stacklevel=3)
    yield False


def get_pulling_indices(algorithm, weight, centroids=None):
    """For each weight, of any shape, the int64 index of the nearest centroid; centroids need not be sorted.

    If two centroids are equally near, the smaller one is taken; tfmot takes the first one.
    """
    import tensorflow as tf

    centroids = tf.convert_to_tensor(algorithm.cluster_centroids if centroids is None else centroids)
    order = tf.argsort(centroids, stable=True)
    ascending = tf.gather(centroids, order)
    midpoints = (ascending[1:] + ascending[:-1]) / 2
    places = tf.searchsorted(midpoints, tf.reshape(weight, [-1]), side="left")
    return tf.reshape(tf.cast(tf.gather(order, places), tf.int64), tf.shape(weight))


def get_clustered_weight(algorithm, pulling_indices, original_weight):
    """Each weight's centroid. The gradient passes through to the weight; a centroid gets the sum over its weights.

    These are tfmot's gradients with its default aggregation, SUM.
    """
    import tensorflow as tf

    @tf.custom_gradient
    def gather(centroids, weight):
        del weight  # takes part in the gradient only

        def spread(gradient):
            indices, count = tf.cast(tf.reshape(pulling_indices, [-1]), tf.int32), tf.size(centroids)
            return tf.math.bincount(indices, tf.reshape(gradient, [-1]), count, count), gradient

        return tf.gather(centroids, pulling_indices), spread

    return gather(tf.convert_to_tensor(algorithm.cluster_centroids), tf.convert_to_tensor(original_weight))


def same_answers(algorithm_class: type) -> bool:
    """Whether both methods give the same results on a sample as the methods of `algorithm_class`.

    The sample has unsorted centroids, some of them equal, and some weights beyond all of them. Ties may go either way.
    """
    import tensorflow as tf

    random = np.random.default_rng(0)
    centroids = tf.Variable(np.append(random.normal(size=61), [0.0, 0.5, 0.5]).astype(np.float32))
    weight = tf.Variable(np.append(random.normal(size=4093), [0.0, -9.0, 9.0]).astype(np.float32).reshape(2, 4, 512))
    upstream = tf.constant(random.normal(size=weight.shape).astype(np.float32))
    algorithm = algorithm_class(centroids)
    theirs, ours = algorithm.get_pulling_indices(weight), get_pulling_indices(algorithm, weight)
    distances = [np.abs(weight - tf.gather(centroids, indices)) for indices in (theirs, ours)]
    if theirs.dtype != ours.dtype or not np.allclose(*distances, rtol=0, atol=1e-6):
        return False
    results = []
    for method in (algorithm_class.get_clustered_weight, get_clustered_weight):
        with tf.GradientTape() as tape:
            clustered = method(algorithm, theirs, weight)
        gradients = tape.gradient(clustered, [centroids, weight], upstream)
        results.append([np.asarray(tf.convert_to_tensor(tensor)) for tensor in (clustered, *gradients)])
    return all(np.allclose(a, b, rtol=1e-5, atol=1e-4) for a, b in zip(*results, strict=True))
