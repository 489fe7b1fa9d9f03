import pytest

from tests.compression.tiny_net import SPEC, tiny_arrays, tiny_batches


@pytest.fixture(scope="session")
def arrays():
    return tiny_arrays(SPEC)


@pytest.fixture(scope="session")
def batches():
    return tiny_batches()
