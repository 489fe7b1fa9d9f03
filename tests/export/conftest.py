"""One served version of a small model, made once for all tests of the export."""

import fcntl
import os
import shutil
import socket

import pytest

from export.client.client import Client
from export.formats import reproducible
from export.formats.saved_model import export_saved_model
from export.server.serving import ServerConfig, serve
from sqz_keras.models import squeezenet
from tests.export.calls import Stubs
from tests.export.samples import random_arrays, small_spec


@pytest.fixture(scope="session")
def spec():
    return small_spec()


@pytest.fixture(scope="session")
def arrays(spec):
    return random_arrays(spec)


@pytest.fixture(scope="session")
def model(spec, arrays):
    return squeezenet.build(spec, arrays)


@pytest.fixture(scope="session")
def base_path(spec, arrays, tmp_path_factory):
    base = tmp_path_factory.mktemp("serving") / "squeezenet"
    if "PYTEST_XDIST_WORKER" not in os.environ:
        export_saved_model(spec, arrays, base, 3)
        return base
    # An export takes ten seconds, so the processes that share out the tests share it too: the first one writes it.
    shared = tmp_path_factory.getbasetemp().parent / "exported"
    with open(f"{shared}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not shared.exists():
            export_saved_model(spec, arrays, shared, 3)
    shutil.copytree(shared, base)
    return base


@pytest.fixture
def in_this_process(monkeypatch):
    """Makes exports write the SavedModel in this process: a process of their own takes ten seconds to start."""
    monkeypatch.setattr(reproducible, "write_saved_model", reproducible.write_in_this_process)


@pytest.fixture(scope="session")
def target(base_path):
    """host:port of an embedded server in this process."""
    with serve(base_path, ServerConfig(port=0)) as port:
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="session")
def stubs(target):
    with Stubs(target) as stubs:
        yield stubs


@pytest.fixture(scope="session")
def client(target):
    with Client(target) as client:
        client.wait_until_ready(10)
        yield client


@pytest.fixture
def ipv6():
    """Skips a test if the machine has no IPv6."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
