"""TensorFlow's own model server, started with flags that match those of sqz-serve."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator

from export.server import threads

BINARY = "tensorflow_model_server"
MAX_THREADS = 64  # with its default of 4 per core, the server refuses calls from 8 clients on 2 cores
STOP_SECONDS = 10.0
# For any server of these models. A version that fails to load is not retried, since the retries, a minute apart, keep
# the next version waiting.
FLAGS = {
    "grpc_max_threads": str(MAX_THREADS),
    "tensorflow_intra_op_parallelism": str(threads.INSIDE_AN_OPERATION),
    "max_num_load_retries": "0",
    "enable_grpc_healthcheck_service": "true",
}


def find() -> str | None:
    """The path of the model server, or None if it is not on the PATH."""
    return shutil.which(BINARY)


def command(
    binary: str, base_path: str | os.PathLike, model_name: str, port: int, ssl_config_file: str | None = None
) -> list[str]:
    """The command line that serves one model as sqz-serve does."""
    flags = {
        "port": port,
        "model_name": model_name,
        "model_base_path": os.path.abspath(base_path),
        "tensorflow_inter_op_parallelism": threads.between_operations(),
        "grpc_channel_arguments": "grpc.so_reuseport=0",  # two servers on one port would each get some of the calls
        **FLAGS,
    }
    if ssl_config_file:
        flags["ssl_config_file"] = ssl_config_file
    return [binary, *(f"--{name}={value}" for name, value in flags.items())]


def ssl_config(key: bytes, cert: bytes) -> str:
    """The content of a file for TensorFlow Serving's `--ssl_config_file`.

    Args:
        key: Content of the private key's PEM file.
        cert: Content of the certificate's PEM file.

    Returns:
        The text of an SSLConfig message, which holds both.
    """

    def quoted(pem: bytes) -> str:
        return '"' + pem.decode("ascii").replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'

    return f"server_key: {quoted(key)}\nserver_cert: {quoted(cert)}\nclient_verify: false\n"


@contextlib.contextmanager
def serve(
    binary: str,
    base_path: str | os.PathLike,
    model_name: str,
    port: int,
    key_and_cert: tuple[bytes, bytes] | None = None,
    stopped: threading.Event | None = None,
) -> Iterator[int]:
    """Runs the model server while the block runs, and gives the port once the server listens on it.

    It listens on every address of the machine, as it has no flag to choose one.

    Args:
        binary: Path of the model server.
        base_path: The folder of all versions.
        model_name: The name by which clients ask for the model.
        port: 0 takes a free one.
        key_and_cert: Private key and certificates, PEM, for TLS.
        stopped: Set when the server has ended, by itself or with the block. If the caller sets it before the server
            listens, the port is given at once.

    Raises:
        OSError: The port is taken, or the server ended by itself.
    """
    port, stopped = _free_port(port), stopped or threading.Event()
    with tempfile.TemporaryDirectory(prefix="sqz-serve-") as private:  # mode 700: the key is in it
        config_file = None
        if key_and_cert:
            config_file = os.path.join(private, "ssl_config.txt")
            with open(config_file, "w", encoding="ascii") as file:
                file.write(ssl_config(*key_and_cert))
        # The server gets a session of its own: Ctrl-C reaches this process alone, which then ends the server cleanly.
        arguments = command(binary, base_path, model_name, port, config_file)
        process = subprocess.Popen(arguments, start_new_session=True)
        threading.Thread(target=lambda: (process.wait(), stopped.set()), daemon=True).start()
        try:
            _wait_until_open(port, process, stopped)
            yield port
            if process.poll() is not None:
                raise OSError(f"{binary} ended by itself, with status {process.returncode}; its messages say why.")
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_port(port: int) -> int:
    """Returns the port if nothing listens on it, or a free port for 0."""
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # an earlier server's connections may be closing
        try:
            free.bind(("0.0.0.0", port))  # where the server will listen
        except OSError as error:
            raise OSError(f"Cannot listen on 0.0.0.0:{port}: is it taken? --port=0 takes a free port.") from error
        return free.getsockname()[1]


def _wait_until_open(port: int, process: subprocess.Popen, stopped: threading.Event) -> None:
    """Returns once the server has loaded the model and then opened the port, or once `stopped` is set."""
    while process.poll() is None and not stopped.is_set():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
            # While nothing listens, a connection may happen to be made from this very port, to itself.
            if connection.getsockname() != connection.getpeername():
                return
        time.sleep(0.05)
    if process.poll() is not None:
        raise OSError(
            f"{process.args[0]} ended before it served, with status {process.returncode}; its messages say why."
        )
