"""A page for people in front of any server of the contract: drop an image, see what it shows.

It serves three paths: the page, the model's card, and the answer for one posted image, which it asks a
`export.client.client.Client` for. It opens no file that a request names.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import ipaddress
import json
import os
import pathlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from http import server

from absl import logging

from export import contract, versions
from export.client import images as client_images
from export.client.client import Client, Prediction, ServingError
from export.page.card import read_card
from sqz_keras.architecture.spec import imagenet_classes

PAGE_PATH = pathlib.Path(__file__).with_name("index.html")
MAX_IMAGE_BYTES = 32 << 20
MAX_CONNECTIONS = 8  # more are told to come back later
REQUEST_SECONDS = 20.0  # for a request to arrive whole, and for its answer to leave
_JSON, _HTML = "application/json", "text/html; charset=utf-8"
_BUSY = b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"


@contextlib.contextmanager
def serve_page(
    client: Client, base_path: str | os.PathLike | None = None, *, host: str = "127.0.0.1", port: int = 0
) -> Iterator[int]:
    """Serves the page in the background for as long as the block runs, and gives its port.

    Args:
        client: asks the server that answers.
        base_path: folder of the served model where it is at hand: the card is then the whole description.
        host: address to listen on. There is no encryption and no password.
        port: 0 takes a free one.

    Raises:
        OSError: the address cannot be listened on.
    """
    try:
        page_server = _PageServer((host, port), client, base_path)
    except OSError as error:
        raise OSError(
            f"Cannot listen on {host}:{port} for the page: {error.strerror}. --web_port=0 takes a free port."
        ) from error
    thread = threading.Thread(target=page_server.serve_forever, kwargs={"poll_interval": 0.1}, name="page")
    thread.start()
    try:
        yield page_server.server_port
    finally:
        page_server.shutdown()
        thread.join()
        page_server.drain()


class _PageServer(server.ThreadingHTTPServer):
    daemon_threads = False  # `drain` waits for them

    def __init__(self, address: tuple[str, int], client: Client, base_path: str | os.PathLike | None):
        self.page = PAGE_PATH.read_bytes()
        self.policy = _policy(self.page.decode())
        self.host, self.client, self.base_path = address[0], client, base_path
        self.turning = threading.Lock()  # one at a time: a large image takes half a gigabyte when it is turned
        self._places, self._open = threading.BoundedSemaphore(MAX_CONNECTIONS), set()
        super().__init__(address, _Handler)

    def process_request(self, request, client_address):
        if self._places.acquire(blocking=False):
            self._open.add(request)
            super().process_request(request, client_address)
            return
        with contextlib.suppress(OSError):
            request.setblocking(False)
            request.send(_BUSY)
        self.shutdown_request(request)

    def process_request_thread(self, request, client_address):
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._open.discard(request)
            self._places.release()

    def drain(self) -> None:
        """Ends connections that have asked nothing yet, and waits until the others have their answer."""
        for request in list(self._open):
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RD)
        self.server_close()

    def is_own(self, name: str) -> bool:
        """Whether a Host header names this server, and not a name that its owner has pointed here (DNS rebinding).

        An address cannot be pointed elsewhere, so any is taken.
        """
        name = re.sub(r":\d{1,5}$", "", name).strip("[]").lower()
        if name in ("localhost", self.host.lower()):
            return True
        try:
            return bool(ipaddress.ip_address(name))
        except ValueError:
            return False


class _RequestError(Exception):
    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class _Handler(server.BaseHTTPRequestHandler):
    """One request; the connection ends with it."""

    server_version, sys_version = "sqz-serve", ""

    def setup(self):
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_Deadline(self.connection, REQUEST_SECONDS))

    def handle(self):
        with contextlib.suppress(ConnectionError, TimeoutError):  # the other side is gone, or too slow
            super().handle()

    def do_GET(self):
        self._answer({"/": self._page, "/card": self._card})

    def do_POST(self):
        self._answer({"/predict": self._predict})

    def send_error(self, code, message=None, explain=None):
        """As JSON, as all errors here are; the base class calls it for what is no HTTP."""
        del explain
        self._send(code, _JSON, json.dumps({"error": message or self.responses[code][0]}).encode())

    def log_message(self, format, *args):
        logging.debug(format, *args)

    def _answer(self, paths: dict) -> None:
        try:
            self._check_sender()
            if self.path not in paths:
                raise _RequestError(404, f"There is no {self.command} {self.path[:100]} here.")
            kind, body = paths[self.path]()
        except _RequestError as error:
            self.send_error(error.status, str(error))
        except ServingError as error:
            self.send_error(503, f"The model server gives no answer. {error}")
        except (ConnectionError, TimeoutError):
            raise
        except Exception:
            logging.exception("The page failed by a defect of its own.")
            self.send_error(500, "The page's server failed; its log says more.")
        else:
            self._send(200, kind, body)

    def _check_sender(self) -> None:
        host = self.headers.get("Host", "")
        if not self.server.is_own(host):
            raise _RequestError(403, f"The page is not at {host[:100]!r}; open it as http://127.0.0.1 with its port.")
        if self.command == "POST" and self.headers.get("Origin", f"http://{host}") != f"http://{host}":
            raise _RequestError(403, "Only this page itself may ask here.")  # browsers send an Origin with each POST

    def _page(self) -> tuple[str, bytes]:
        return _HTML, self.server.page

    def _card(self) -> tuple[str, bytes]:
        client, base_path = self.server.client, self.server.base_path
        version = max(client.available_versions(), default=None)
        if version is None:
            raise _RequestError(503, "The model server has no version ready yet.")
        rows = [("Name", client.model_name), ("Version served", str(version))]
        folders = versions.list_versions(base_path) if base_path else {}
        try:
            rows += read_card(folders[version])
        except (KeyError, ValueError):  # the folder is elsewhere, or of another exporter: what the server tells
            rows.append(("Signatures", ", ".join(sorted(client.signatures()))))
        return _JSON, json.dumps({"rows": rows}).encode()

    def _predict(self) -> tuple[str, bytes]:
        data = self._read_image()
        with self.server.turning:
            image = client_images.as_list(data)
        start = time.perf_counter()
        (prediction,) = self.server.client.predict(image)
        milliseconds = 1000 * (time.perf_counter() - start)
        if prediction.status != contract.STATUS_OK:
            raise _RequestError(422, f"This cannot be read: {prediction.status}.")
        return _JSON, json.dumps({"top": _top(prediction), "milliseconds": milliseconds}).encode()

    def _read_image(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,18}", length, re.ASCII):
            raise _RequestError(411, "The request must say its Content-Length.")
        if int(length) > MAX_IMAGE_BYTES:
            self._discard(int(length))
            raise _RequestError(
                413, f"The file has {int(length) / 1e6:.0f} MB, and at most {MAX_IMAGE_BYTES / 1e6:.0f} MB are taken."
            )
        if int(length) == 0:
            raise _RequestError(400, "The file is empty.")
        image = self.rfile.read(int(length))
        if len(image) < int(length):
            raise _RequestError(400, "The file did not arrive whole.")
        return image

    def _discard(self, length: int) -> None:
        """Reads a body to its end, for a browser listens only after it; within the time of all requests."""
        while length > 0 and (data := self.rfile.read1(min(length, 1 << 16))):
            length -= len(data)

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.connection.settimeout(REQUEST_SECONDS)
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": self.server.policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class _Deadline(io.RawIOBase):
    """Reads a socket until a time; a sender that trickles gains nothing by it."""

    def __init__(self, connection: socket.socket, seconds: float):
        self._connection, self._end = connection, time.monotonic() + seconds
        connection.settimeout(seconds)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        self._connection.settimeout(max(0.001, self._end - time.monotonic()))
        return self._connection.recv_into(buffer)


def _policy(page: str) -> str:
    """Lets the page's own style and script run, and nothing be loaded but the answers."""

    def hashes(tag: str) -> str:
        bodies = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() for body in bodies]
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; img-src blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _top(prediction: Prediction) -> list[dict]:
    """The best classes; with wnids where the classes are ImageNet's."""
    classes = imagenet_classes()
    named = list(zip(prediction.class_ids, prediction.classes, prediction.scores, strict=True))
    is_imagenet = len(prediction.probabilities) == len(classes) and all(classes[i][1] == name for i, name, _ in named)
    if not is_imagenet:
        return [{"name": name, "score": score} for _, name, score in named]
    return [{"name": name.replace("_", " "), "wnid": classes[i][0], "score": score} for i, name, score in named]
