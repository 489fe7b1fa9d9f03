"""Serves the newest version of an exported model over gRPC, on this machine.

sqz-serve --base_path=DIR [--port=8500] [--port_file=FILE] [--ssl_key=FILE --ssl_cert=FILE] [--embedded]

It starts TensorFlow's model server where tensorflow_model_server is on the PATH, which listens on every address, and
otherwise, or with --embedded, a small server of the same protocol, which listens on 127.0.0.1. Both load new versions
and drop old ones as their folders come and go. SIGTERM or Ctrl-C ends it: calls that run are finished first.

--web adds a page for browsers: drop an image, see what it shows.
"""

from __future__ import annotations

import contextlib
import logging
import pathlib
import signal
import ssl
import sys
import threading
from collections.abc import Iterator

from absl import flags

from export import contract
from export.server import model_server
from sqz_keras import command, files


def define_flags() -> None:
    flags.DEFINE_string("base_path", None, "Folder of the served model, which holds a folder a version.", required=True)
    flags.DEFINE_bool("embedded", False, f"Use the small server even where {model_server.BINARY} is on the PATH.")
    flags.DEFINE_string("host", "127.0.0.1", "Address of the embedded server and of the page. There is no password.")
    flags.DEFINE_integer("port", 8500, "Port to listen on; 0 takes a free one.", lower_bound=0, upper_bound=65535)
    flags.DEFINE_string("port_file", None, "File that gets the port's number once the server answers.")
    flags.DEFINE_string("model_name", contract.MODEL_NAME, "Name by which clients ask for the model.")
    flags.DEFINE_string("ssl_key", None, "PEM file of the private key; with --ssl_cert clients must speak TLS.")
    flags.DEFINE_string("ssl_cert", None, "PEM file of the server's certificate, with those that vouch for it.")
    flags.DEFINE_bool("web", False, "Serve a page too, which shows in a browser what is in an image.")
    flags.DEFINE_integer("web_port", 8080, "The page's port; 0 takes a free one.", lower_bound=0, upper_bound=65535)


def main(argv) -> int:
    del argv
    # Before the imports and the loading, so that a signal in the meantime ends the server in order too.
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())

    args = flags.FLAGS
    port_file = pathlib.Path(args.port_file) if args.port_file else None
    if port_file:
        port_file.unlink(missing_ok=True)  # an earlier server's, which no client should take for this one's
    key_and_cert = read_key_and_cert(args.ssl_key, args.ssl_cert)
    if args.web and key_and_cert:
        raise ValueError("The page of --web has no TLS: leave it out, or --ssl_key and --ssl_cert.")
    binary = None if args.embedded else model_server.find()
    server = _model_server(binary, key_and_cert, stopped) if binary else _embedded(key_and_cert)
    with contextlib.ExitStack() as running:
        port = running.enter_context(server)
        if args.web:
            web_port = running.enter_context(_page(port))
            print(f"Page at http://{args.host}:{web_port}/", flush=True)
        if port_file:
            files.write_file(port_file, f"{port}\n".encode())
        where = f"{'0.0.0.0' if binary else args.host}:{port}"
        print(f"Serving {args.model_name} on {where} with {binary or 'the embedded server'}", flush=True)
        stopped.wait()
        if port_file:
            port_file.unlink(missing_ok=True)
    return 0


def read_key_and_cert(key: str | None, cert: str | None) -> tuple[bytes, bytes] | None:
    """The contents of both PEM files, or None where neither is named.

    Raises:
        ValueError: one of them alone, or they are no key and its certificate.
        OSError: they cannot be read.
    """
    if not (key or cert):
        return None
    if not (key and cert):
        raise ValueError("TLS needs both --ssl_key and --ssl_cert.")
    contents = pathlib.Path(key).read_bytes(), pathlib.Path(cert).read_bytes()
    try:
        # An empty password makes a key that wants one an error; OpenSSL would ask for it on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        raise ValueError(
            f"{key} and {cert} are no private key, unencrypted, and its certificate as PEM: {error}."
        ) from error
    return contents


def _model_server(
    binary: str, key_and_cert: tuple[bytes, bytes] | None, stopped: threading.Event
) -> contextlib.AbstractContextManager[int]:
    args = flags.FLAGS
    if args["host"].present and args.host != "0.0.0.0":
        raise ValueError(
            f"{binary} listens on every address and cannot be told --host={args.host}. Add --embedded, or take "
            "--host=0.0.0.0."
        )
    print(f"sqz-serve: {binary} listens on every address; --embedded on 127.0.0.1 alone.", file=sys.stderr, flush=True)
    return model_server.serve(binary, args.base_path, args.model_name, args.port, key_and_cert, stopped.set)


@contextlib.contextmanager
def _page(port: int) -> Iterator[int]:
    from export.client.client import Client
    from export.page.server import serve_page

    args = flags.FLAGS
    target = f"{'127.0.0.1' if args.host == '0.0.0.0' else args.host}:{port}"
    with (
        Client(target, model_name=args.model_name, timeout_seconds=10.0) as client,
        serve_page(client, args.base_path, host=args.host, port=args.web_port) as web_port,
    ):
        yield web_port


def _embedded(key_and_cert: tuple[bytes, bytes] | None) -> contextlib.AbstractContextManager[int]:
    from export.server import ServerConfig, serve

    # The loader of sessions is called deprecated; the model server's own is no other.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    # A traceback for each message that is none, which any client may send, would fill a disk.
    logging.getLogger("grpc._common").setLevel(logging.CRITICAL)
    args = flags.FLAGS
    key, cert = key_and_cert or (None, None)
    config = ServerConfig(host=args.host, port=args.port, model_name=args.model_name, ssl_key=key, ssl_cert=cert)
    return serve(args.base_path, config)


def run() -> None:
    command.run(main, define_flags, __doc__)


if __name__ == "__main__":
    run()
