"""Kernels of Keras 1, and of Keras on Theano."""

import numpy as np
import pytest

from sqz_keras.weights.readers import WeightsFileError, read_arrays
from sqz_keras.weights.readers.theano_kernels import to_hwio
from tests.weights.readers.mutations import assert_equal, layers_of, random_arrays
from tests.weights.readers.test_heads import TRUNK, head
from tests.weights.readers.test_keras_h5 import keras3, legacy


def stored(arrays, theano_order=False, turned=False):
    """The arrays as an older Keras stores them."""

    def kernel(array):
        array = array[::-1, ::-1] if turned else array
        return array.transpose(3, 2, 0, 1) if theano_order else array

    return {name: kernel(array) if array.ndim == 4 else array for name, array in arrays.items()}


def names(backend):
    return (lambda file: file.attrs.__setitem__("backend", np.bytes_(backend))) if backend else (lambda file: None)


@pytest.mark.parametrize("theano_order", [False, True])
@pytest.mark.parametrize(
    ("name", "backend", "turned"),
    [
        ("net.h5", "theano", True),
        ("net.h5", "tensorflow", False),
        ("net.h5", "jax", False),
        ("squeezenet_weights_th_dim_ordering_th_kernels.h5", None, True),
        ("squeezenet_weights_th_dim_ordering_tf_kernels.h5", None, False),
        ("SQUEEZENET_TH_KERNELS.H5", None, True),
        ("th_kernels.h5", None, True),
        ("net_tf_kernels.h5", "theano", True),
        ("net_th_kernels.h5", "tensorflow", False),
    ],
)
def test_kernels_are_turned_where_theano_trained_them(tmp_path, name, backend, turned, theano_order):
    path = tmp_path / name
    path.write_bytes(legacy(stored(random_arrays(), theano_order, turned), names(backend)))
    assert_equal(read_arrays(path), random_arrays())


def test_turned_kernels_compute_a_convolution():
    """What Theano calls a convolution is the sum over input[i - k] * kernel[k]."""
    kernel, row = np.float32([1, 2, 3]), np.float32([0, 1, 0, 0])
    column = np.zeros((3, 3, 1, 1), np.float32)
    column[:, 1, 0, 0] = kernel
    arrays = {"fire2_expand3x3": [column.transpose(3, 2, 0, 1), np.zeros(1, np.float32)]}
    (turned, _) = to_hwio("net.h5", arrays, "theano")["fire2_expand3x3"]
    correlated = np.convolve(row, turned[::-1, 1, 0, 0], "same")
    np.testing.assert_array_equal(correlated, np.convolve(row, kernel, "same"))


def test_the_order_of_theano_without_a_backend_is_refused(tmp_path):
    for name in ("net.h5", "th_kernels_or_tf_kernels.h5"):
        path = tmp_path / name
        path.write_bytes(legacy(stored(random_arrays(), theano_order=True)))
        with pytest.raises(
            WeightsFileError, match=r"ends in _th_kernels\.h5 if that was Theano, or in _tf_kernels\.h5"
        ):
            read_arrays(path)


@pytest.mark.parametrize("name", ["net.h5", "net_with_kernels.h5", "smooth_kernels_2.h5"])
def test_usual_kernels_need_no_backend(tmp_path, name):
    (tmp_path / name).write_bytes(legacy(random_arrays()))
    assert_equal(read_arrays(tmp_path / name), random_arrays())


def test_keras_3_never_ran_on_theano(tmp_path):
    path = tmp_path / "net_th_kernels.weights.h5"
    path.write_bytes(keras3(random_arrays()))
    assert_equal(read_arrays(path), random_arrays())


def test_heads_of_other_names_are_turned_too(tmp_path):
    path = tmp_path / "net.h5"
    path.write_bytes(legacy(stored(TRUNK | head("new"), True, True), names("theano")))
    assert_equal(read_arrays(path), TRUNK | head("conv10"))


def test_layers_of_both_orders_are_refused(tmp_path):
    for layer in layers_of(random_arrays()):
        one = stored({layer + "/kernel": random_arrays()[layer + "/kernel"]}, theano_order=True)
        if one[layer + "/kernel"].shape != random_arrays()[layer + "/kernel"].shape:
            (tmp_path / "net.h5").write_bytes(legacy(random_arrays() | one, names("theano")))
            with pytest.raises(WeightsFileError):
                read_arrays(tmp_path / "net.h5")
            break
    else:
        pytest.fail("no kernel has another shape")
