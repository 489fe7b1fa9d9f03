import numpy as np
import pytest

from sqz_keras.compression.kmeans import kmeans, share_values


def lloyd(values, count):
    """The same algorithm, with every distance computed."""
    centroids = np.linspace(values.min(), values.max(), count)
    for _ in range(1000):
        nearest = np.abs(values[:, None] - centroids).argmin(axis=1)
        moved = np.array([values[nearest == k].mean() if (nearest == k).any() else centroids[k] for k in range(count)])
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids[nearest]


@pytest.fixture
def arrays():
    random = np.random.default_rng(0)
    kernel = random.normal(size=(3, 3, 8, 16)).astype(np.float32)
    kernel[random.random(kernel.shape) < 0.6] = 0
    return {
        "conv1/kernel": kernel,
        "conv1/bias": random.normal(size=16).astype(np.float32),
        "conv10/kernel": random.laplace(size=(1, 1, 16, 40)).astype(np.float32),
    }


@pytest.mark.parametrize("count", [1, 2, 7, 63])
def test_is_lloyds_algorithm(arrays, count):
    kernel = arrays["conv10/kernel"]
    expected = lloyd(kernel.ravel().astype(np.float64), count).reshape(kernel.shape)
    np.testing.assert_allclose(share_values(kernel, count), expected, rtol=1e-6)


@pytest.mark.parametrize("bits", [1, 2, 6])
def test_few_values_and_the_same_zeros(arrays, bits):
    shared = kmeans(arrays, bits)
    assert list(shared) == list(arrays)
    np.testing.assert_array_equal(shared["conv1/bias"], arrays["conv1/bias"])
    for name in ("conv1/kernel", "conv10/kernel"):
        assert shared[name].dtype == np.float32
        assert len(np.unique(shared[name][shared[name] != 0])) <= 2**bits - 1
        np.testing.assert_array_equal(shared[name] == 0, arrays[name] == 0)


def test_bits_by_layer(arrays):
    shared = kmeans(arrays, {"conv1": 3})
    assert len(np.unique(shared["conv1/kernel"])) == 8
    np.testing.assert_array_equal(shared["conv10/kernel"], arrays["conv10/kernel"])


def test_more_bits_are_nearer(arrays):
    errors = [np.square(kmeans(arrays, bits)["conv1/kernel"] - arrays["conv1/kernel"]).sum() for bits in range(2, 9)]
    assert errors == sorted(errors, reverse=True)


def test_few_different_values_stay(arrays):
    kernel = np.array([0, 0.1, 0.1, -3, 7], np.float32)
    np.testing.assert_array_equal(share_values(kernel, 3), kernel)
    for empty in (np.zeros((0, 2), np.float32), np.zeros(3, np.float32)):
        np.testing.assert_array_equal(share_values(empty, 3), empty)


def test_dense_ranges_get_more_centroids():
    """An exponent trades entropy for error: the error falls and the entropy rises."""
    kernel = np.random.default_rng(0).laplace(size=20_000).astype(np.float32)
    even, cubic = share_values(kernel, 31), share_values(kernel, 31, 1 / 3)
    assert np.square(cubic - kernel).sum() < 0.8 * np.square(even - kernel).sum()
    entropies = []
    for shared in (even, cubic):
        shares = np.unique(shared, return_counts=True)[1] / kernel.size
        entropies.append(-(shares * np.log2(shares)).sum())
    assert entropies[0] < entropies[1]


def test_a_mean_of_zero_prunes_nothing():
    shared = share_values(np.array([-1, 1, 0], np.float32), 1)
    np.testing.assert_array_equal(shared != 0, [True, True, False])


def test_the_callers_arrays_stay(arrays):
    before = {name: array.copy() for name, array in arrays.items()}
    kmeans(arrays, 2)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize(("bits", "message"), [(0, "bits must be 1 to 16"), ({"fire2": 6}, "no layer 'fire2'")])
def test_mistakes_are_refused(arrays, bits, message):
    with pytest.raises(ValueError, match=message):
        kmeans(arrays, bits)
