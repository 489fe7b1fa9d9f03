"""A net small enough to be pruned and clustered in seconds, and images that it can learn."""

import numpy as np

from sqz_keras import Metaparameters, ModelSpec

TINY = Metaparameters(base_e=16, squeeze_ratio=0.5, num_fire_modules=1, stem_filters=8, stem_kernel=3, pool_after=(1,))
SPEC = ModelSpec(None, metaparameters=TINY, classes=4, input_size=33)


def tiny_arrays(spec):
    """Random weights with which no class always scores 0: the ReLU would keep such a class at 0 for good."""
    random = np.random.default_rng(2)
    arrays = {}
    for name, shape in spec.weight_shapes().items():
        if name.endswith("/kernel"):
            arrays[name] = (random.normal(size=shape) * np.sqrt(2 / np.prod(shape[:3]))).astype(np.float32)
        else:
            arrays[name] = np.full(shape, 0.5 if name.startswith("conv10/") else 0.1, np.float32)
    return arrays


def tiny_images(count=32, seed=0):
    """Images of noise around one of four colours, float32 (count, 33, 33, 3), and their int64 classes."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, count)
    colours = np.array([[2, 0, 0], [0, 2, 0], [0, 0, 2], [1, 1, 1]], np.float32)
    noise = random.normal(scale=0.5, size=(count, 33, 33, 3))
    return (colours[labels][:, None, None] + noise).astype(np.float32), labels


def tiny_batches():
    """Endless batches of eight images and their labels; four different batches come in turn."""
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(tiny_images()).batch(8).repeat()
