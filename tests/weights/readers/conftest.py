import pytest


@pytest.fixture
def path(tmp_path, request):
    """Where a test writes the file that is read; its module says how the file is called."""
    return tmp_path / request.module.FILE_NAME
