import pytest


@pytest.fixture(scope="session")
def tfds_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="session")
def digits(tfds_dir):
    """The builder of the digits, prepared."""
    from trainers.input_pipeline import open_dataset

    return open_dataset("digits", tfds_dir)
