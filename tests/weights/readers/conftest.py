import pytest


@pytest.fixture
def path(tmp_path, request):
    """The path where a test writes the file to be read; FILE_NAME in the test's module is the name."""
    return tmp_path / request.module.FILE_NAME
