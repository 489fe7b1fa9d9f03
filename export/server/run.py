"""Runs sqz-serve from its config: one of the two servers, the page, and the file that holds the server's port."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import pathlib
import ssl
import sys
import threading
from collections.abc import Iterator

from export import contract, versions
from export.client.pem import read_pem
from export.server import model_server
from sqz_keras import files, memory
from sqz_keras.command import flag_field
from sqz_keras.extras import needs

LOCALHOST, EVERY_ADDRESS = "127.0.0.1", "0.0.0.0"
_KEPT_MESSAGES = 4  # of the largest size
# The bytes in a certificate that identify the type of its key: RSA, the curve P-256, the curve P-384. With other types,
# such as Ed25519, gRPC's library makes no connection.
_KEYS_OF_GRPC = tuple(map(bytes.fromhex, ("06092a864886f70d010101", "06082a8648ce3d030107", "06052b81040022")))
# Python runs a signal's handler when a wait ends, and a signal that comes just before a wait does not end that wait.
_SECONDS_BETWEEN_SIGNALS = 1.0


@dataclasses.dataclass(frozen=True)
class ServeConfig:
    """What to serve, and where. A field's help is also the help of its flag."""

    base_path: str = flag_field(
        None, "Folder of the served model, which holds a folder for each version.", required=True
    )
    embedded: bool = flag_field(
        False,
        "Use the small server even where tensorflow_model_server, which listens on every address, is on the PATH.",
    )
    host: str | None = flag_field(
        None, "Address of the embedded server and of the page, which have no password; by default 127.0.0.1."
    )
    port: int = flag_field(8500, "Port to listen on; 0 takes a free one.", lower_bound=0, upper_bound=65535)
    port_file: str | None = flag_field(None, "File that holds the port's number for as long as the server answers.")
    model_name: str = flag_field(contract.MODEL_NAME, "Name by which clients ask for the model.")
    ssl_key: str | None = flag_field(None, "PEM file of the private key; with --ssl_cert, clients must speak TLS.")
    ssl_cert: str | None = flag_field(None, "PEM file of the server's certificate and its chain.")
    web: bool = flag_field(False, "Serve a page for browsers too, which shows what is in an image; without TLS.")
    web_port: int = flag_field(8080, "The page's port; 0 takes a free one.", lower_bound=0, upper_bound=65535)


def run_server(config: ServeConfig, stopped: threading.Event) -> None:
    """Serves until `stopped` is set, and prints on stdout where.

    Raises:
        ValueError: The config contradicts itself, or no version can be loaded.
        OSError: A file cannot be read, an address cannot be listened on, or the model server ended by itself.
    """
    if not config.model_name:
        raise ValueError("--model_name must not be empty: clients ask for the model by its name.")
    if config.port_file:
        files.check_writable(config.port_file)
    key_and_cert = read_key_and_cert(config.ssl_key, config.ssl_cert)
    if config.web and key_and_cert:
        raise ValueError("The page of --web has no TLS: leave it out, or --ssl_key and --ssl_cert.")
    binary = None if config.embedded else model_server.find()
    server = _model_server(binary, config, key_and_cert, stopped) if binary else _embedded(config, key_and_cert)
    port_file = pathlib.Path(config.port_file) if config.port_file else None
    if port_file:
        port_file.unlink(missing_ok=True)  # it may be an earlier server's, which clients would take for this one's
    with contextlib.ExitStack() as running:
        port = running.enter_context(server)
        if stopped.is_set():  # while the server started
            return
        if config.web:
            web_port = running.enter_context(_page(config, port))
            print(f"Page at http://{contract.address(config.host or LOCALHOST, web_port)}/", flush=True)
        if port_file:
            files.write_file(port_file, _port_line(port))
        where = contract.address(EVERY_ADDRESS if binary else config.host or LOCALHOST, port)
        print(f"Serving {config.model_name} on {where} with {binary or 'the embedded server'}", flush=True)
        while not stopped.wait(_SECONDS_BETWEEN_SIGNALS):
            pass
        if port_file:
            with contextlib.suppress(FileNotFoundError):
                if port_file.read_bytes() == _port_line(port):  # not the port of a server started later
                    port_file.unlink()


def _port_line(port: int) -> bytes:
    return f"{port}\n".encode()


def read_key_and_cert(key: str | None, cert: str | None) -> tuple[bytes, bytes] | None:
    """The blocks of the key's PEM file and the certificates of the other file; None if neither file is named.

    Raises:
        ValueError: Only one of the files is named, they are not an unencrypted key and its certificate, or the key is
            of a type that gRPC does not take.
        OSError: A file cannot be read.
    """
    if not (key or cert):
        return None
    if not (key and cert):
        raise ValueError("TLS needs both --ssl_key and --ssl_cert.")
    blocks, certificates = read_pem(key), read_pem(cert, certificates=True)
    try:
        if not certificates:
            raise ValueError("there is no certificate")
        # With an empty password, an encrypted key is an error. Without one, OpenSSL would ask for it on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except (ValueError, ssl.SSLError) as error:
        raise ValueError(
            f"{key} and {cert} must be an unencrypted private key and its certificate, as PEM: {error}."
        ) from error
    certificate = ssl.PEM_cert_to_DER_cert(certificates[0].decode("ascii"))
    if not any(identifier in certificate for identifier in _KEYS_OF_GRPC):
        raise ValueError(f"{key} must be an RSA key, or one of the curve P-256 or P-384: gRPC takes no others.")
    return b"".join(blocks), b"".join(certificates)


def _model_server(
    binary: str, config: ServeConfig, key_and_cert: tuple[bytes, bytes] | None, stopped: threading.Event
) -> contextlib.AbstractContextManager[int]:
    if config.host not in (None, EVERY_ADDRESS):
        raise ValueError(
            f"{binary} listens on every address, not on --host={config.host} alone. Add --embedded, or use "
            f"--host={EVERY_ADDRESS}."
        )
    print(
        f"sqz-serve: {binary} listens on every address; with --embedded, 127.0.0.1 alone.", file=sys.stderr, flush=True
    )
    versions.newest(config.base_path)  # raises if there is no version: the model server would wait for one forever
    return model_server.serve(binary, config.base_path, config.model_name, config.port, key_and_cert, stopped)


def _embedded(config: ServeConfig, key_and_cert: tuple[bytes, bytes] | None) -> contextlib.AbstractContextManager[int]:
    from export.server.serving import ServerConfig, serve

    memory.keep_blocks(largest=contract.MAX_MESSAGE_BYTES, in_all=_KEPT_MESSAGES * contract.MAX_MESSAGE_BYTES)
    # gRPC logs a traceback for each request that is not a message, so any client could fill the disk with them.
    logging.getLogger("grpc._common").setLevel(logging.CRITICAL)
    host = config.host or LOCALHOST
    listening = ServerConfig(host=host, port=config.port, model_name=config.model_name, key_and_cert=key_and_cert)
    return serve(config.base_path, listening)


@contextlib.contextmanager
def _page(config: ServeConfig, port: int) -> Iterator[int]:
    with needs("page"):
        from export.client.client import Client
        from export.page.server import serve_page

    host = config.host or LOCALHOST
    target = contract.address(LOCALHOST if host == EVERY_ADDRESS else host, port)
    with (
        Client(target, model_name=config.model_name, timeout_seconds=10.0) as client,
        serve_page(client, config.base_path, host=host, port=config.web_port) as web_port,
    ):
        yield web_port
