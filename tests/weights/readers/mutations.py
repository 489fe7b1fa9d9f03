"""A small net for writing test files, and the checks that damaged copies of a file go through."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest

from sqz_keras.architecture.metaparameters import Metaparameters
from sqz_keras.architecture.spec import ModelSpec
from sqz_keras.weights.readers import WeightsFileError, check_shapes, read_arrays

SPEC = ModelSpec(
    version=None,
    metaparameters=Metaparameters(num_fire_modules=8, base_e=8, incr_e=8, stem_filters=4, stem_kernel=3),
    classes=10,
)
SHAPES = SPEC.weight_shapes()


def random_arrays(shapes=SHAPES):
    rng = np.random.default_rng(7)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def oihw(array):
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array


def layers_of(arrays):
    """The arrays by layer and part."""
    grouped = {}
    for name, array in arrays.items():
        layer, part = name.split("/")
        grouped.setdefault(layer, {})[part] = array
    return grouped


def load(path, shapes=SHAPES):
    arrays = read_arrays(path)
    check_shapes(path, arrays, shapes)
    assert list(arrays) == list(shapes)
    return arrays


def assert_equal(arrays, expected):
    assert list(arrays) == list(expected)
    for name, array in arrays.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def assert_refused(path):
    """The file must be refused with an error that names it."""
    with pytest.raises(WeightsFileError) as error:
        load(path)
    assert str(path) in str(error.value)


def truncations(data, count):
    """Shorter copies, from empty to one byte short."""
    return [data[:size] for size in np.linspace(0, len(data) - 1, count).astype(int)]


def flips(data, count, seed):
    """Copies with one to eight bytes changed."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        copy = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 9)):
            copy[at] ^= int(rng.integers(1, 256))
        yield bytes(copy)


def check_refused(path, copies, shapes=SHAPES):
    """Every copy must be refused with an error that names the file; returns how many there were."""
    number = 0
    for number, copy in enumerate(copies, start=1):
        path.write_bytes(copy)
        with pytest.raises(WeightsFileError) as error:
            load(path, shapes)
            pytest.fail(f"mutation {number} was read")
        assert path.name in str(error.value) and len(str(error.value)) < 1500
    return number


def check_harmless(path, copies, shapes=SHAPES):
    """Every copy must be refused, or give finite arrays of the right shapes; returns how many there were."""
    copies = list(copies)
    for copy in copies:
        path.write_bytes(copy)
        try:
            arrays = load(path, shapes)
        except WeightsFileError as error:
            assert path.name in str(error)
        else:
            assert all(np.isfinite(array).all() for array in arrays.values())
    return len(copies)


def check_refused_in_little_memory(path, limit=32 << 20):
    """The file must be refused without an allocation of its declared size."""
    tracemalloc.start()
    try:
        with pytest.raises(WeightsFileError):
            load(path)
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def changed(arrays, name, array):
    """The arrays with one replaced, or left out if `array` is None."""
    result = {**arrays, name: array}
    return result if array is not None else {key: value for key, value in result.items() if value is not None}


def broken_arrays(arrays):
    """Sets of arrays that no net of `SPEC` has: a value, shape or name is wrong, or an array is missing or extra."""
    kernels = [name for name in arrays if name.endswith("/kernel")]
    for (name, array), value in zip(arrays.items(), itertools.cycle((math.nan, math.inf, -math.inf)), strict=False):
        spoiled = array.copy()
        spoiled.flat[-1] = value
        yield changed(arrays, name, spoiled)
        yield changed(arrays, name, None)
        yield changed(arrays, name, np.concatenate([array, array], axis=-1))
    for name in kernels:
        yield changed(arrays, name, np.concatenate([arrays[name]] * 2, axis=2))
        yield changed(arrays, name, arrays[name][..., 0])
    yield {**arrays, "conv11/kernel": arrays["conv10/kernel"], "conv11/bias": arrays["conv10/bias"]}
    yield {**arrays, "fire10_squeeze1x1/kernel": arrays[kernels[1]], "fire10_squeeze1x1/bias": np.zeros(1, np.float32)}
