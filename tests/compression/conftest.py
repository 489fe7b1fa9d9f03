import numpy as np
import pytest

from tests.compression.tiny_net import SPEC, tiny_arrays, tiny_batches


@pytest.fixture(scope="session")
def arrays():
    return tiny_arrays(SPEC)


@pytest.fixture(scope="module")
def pruned():
    """Weights in which half of one kernel is 0."""
    arrays = tiny_arrays(SPEC)
    kernel = arrays["fire2_expand3x3/kernel"]
    kernel[np.abs(kernel) < np.median(np.abs(kernel))] = 0
    return arrays


@pytest.fixture(scope="session")
def batches():
    return tiny_batches()
