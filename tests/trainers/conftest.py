import pytest


@pytest.fixture(scope="module")
def determinism_ends_here():
    """Ends op determinism, which TensorFlow's public API cannot, as XLA would refuse the tests of other modules."""
    yield
    from tensorflow.python.framework import config

    config.disable_op_determinism()


@pytest.fixture(scope="session")
def tfds_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="session")
def digits_builder(digits, tfds_dir):
    """The builder of the digits, prepared."""
    import tensorflow_datasets as tfds

    return tfds.builder("digits", data_dir=tfds_dir)


@pytest.fixture(scope="session")
def digits(tfds_dir):
    """The digits as a source of labelled images."""
    from trainers.data.source import open_dataset

    return open_dataset("digits", tfds_dir)
