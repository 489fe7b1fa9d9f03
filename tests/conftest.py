"""Shared set-up: quiet TensorFlow, a private Keras home, and the folder of real test data."""

import contextlib
import functools
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

# These are read when TensorFlow and Keras are imported, so they are set before any test module is. Keras must never
# read or write the cache in the home folder of whoever runs the tests.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as in the commands
_keras_home = tempfile.TemporaryDirectory(prefix="sqz-keras-test-home-")
os.environ["KERAS_HOME"] = _keras_home.name


def pytest_configure(config):
    """Two logical CPUs, so that a strategy with two replicas runs on any machine; before TensorFlow is used."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """The same initial weights in every run: Keras draws the seeds of its initializers from Python's generator."""
    random.seed(0)


@pytest.fixture(scope="session", autouse=True)
def ask_worker():
    """One process reads the HDF5 files of all tests, as it takes a quarter of a second to start; yields the original.

    Not for damaged files, on which the process may crash or hang.
    """
    from sqz_keras.weights.readers import keras_h5

    original = keras_h5.ask_worker
    with contextlib.ExitStack() as stack:

        @functools.cache
        def worker():
            command = [sys.executable, "-P", keras_h5._WORKER, str(keras_h5.MAX_BYTES)]
            env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            return stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
            )

        def ask(files):
            replies = []
            for file in files:
                worker().stdin.write(len(file).to_bytes(8, "little") + file)
                worker().stdin.flush()
                size = int.from_bytes(worker().stdout.read(8), "little")
                replies.append(worker().stdout.read(size))
            return replies

        stack.enter_context(pytest.MonkeyPatch.context()).setattr(keras_h5, "ask_worker", ask)
        yield original


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real weights and images, named by ``SQZ_TEST_DATA``; skips if that is unset."""
    value = os.environ.get("SQZ_TEST_DATA")
    if not value:
        pytest.skip("set SQZ_TEST_DATA to the folder of real weights and images")
    folder = Path(value)
    if not folder.is_dir():
        pytest.fail(f"SQZ_TEST_DATA must name an existing folder, got {value!r}; unset it to skip these tests")
    return folder


@pytest.fixture(scope="session")
def cached_weights(test_data):
    """Keras's folder has the weights that `weights="imagenet"` would download."""
    from sqz_keras.weights import download, records

    for name in ("squeezenet1.0_deep_compression", "squeezenet1.1_authors"):
        record = records.get_record(name)
        path = download.cache_path(record)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(next((test_data / "weights").rglob(record.filename)), path)


@pytest.fixture
def free_port():
    """A TCP port that no server uses, as text."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@pytest.fixture
def run_command():
    """Calls a command's main in this process."""
    from tests import in_process

    return in_process.run


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A headless Chromium; skips if there is none."""
    from tests.browser import Browser

    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium on the PATH")
    with contextlib.closing(Browser(program, tmp_path_factory.mktemp("chromium"))) as browser:
        yield browser
