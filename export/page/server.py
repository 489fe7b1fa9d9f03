"""A web page in front of any server that follows the contract: drop an image, see what it shows.

uvicorn serves the application of `export.page.app`. The limits on time and connections, which uvicorn lacks, are here.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from export.client.client import Client
from export.page.app import PageApp, error_response

MAX_CONNECTIONS = 8  # further ones are closed with a 503
REQUEST_SECONDS = 20.0  # for a request to arrive whole, and again for its answer to be sent
MAX_HEADER_BYTES = 1 << 17
_BUSY_BODY = b'{"error": "The page is busy. Try again in a second."}'
_BUSY = (
    b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_BUSY_BODY), _BUSY_BODY)
)
# Our status and message for requests that h11 refuses, by a part of h11's message.
_REFUSALS = {
    "Content-Length": (411, "The request must have one Content-Length, a number of bytes."),
    "Host": (403, "The request must have one Host."),
    "closed connection": (400, "The file did not arrive whole."),
}


@contextlib.contextmanager
def serve_page(
    client: Client, base_path: str | os.PathLike | None = None, *, host: str = "127.0.0.1", port: int = 0
) -> Iterator[int]:
    """Serves the page in the background while the block runs, and gives its port.

    At the end of the block, requests that have arrived whole still get their answer.

    Args:
        client: Asks the server that has the model.
        base_path: Folder of the served model, or None if it is not on this machine. With it, the card shows the whole
            description.
        host: Address to listen on. There is no encryption and no password.
        port: 0 takes a free one.

    Raises:
        OSError: The address cannot be listened on.
    """
    try:
        name = host.strip("[]")
        family = socket.AF_INET6 if ":" in name else socket.AF_INET
        listening = socket.create_server((name, port), family=family)
    except OSError as error:
        raise OSError(
            f"Cannot listen on {host}:{port} for the page: {error.strerror}. --web_port=0 takes a free port."
        ) from error
    config = uvicorn.Config(
        PageApp(client, base_path, host),
        http=_Connection,
        loop="asyncio",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="error",  # clients' mistakes do not belong in the log
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="page")
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


class _Connection(H11Protocol):
    """A connection for one request. Receiving it and sending its answer may take REQUEST_SECONDS each."""

    def connection_made(self, transport) -> None:
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self._close_unless_whole)
        if len(self.connections) >= MAX_CONNECTIONS:
            self.transport = transport
            transport.write(_BUSY)
            transport.close()
        else:
            super().connection_made(transport)

    def connection_lost(self, exc) -> None:
        self._deadline.cancel()
        super().connection_lost(exc)

    def eof_received(self) -> bool:
        """Answers a client that has closed its side of the connection, if it has sent a request."""
        if self.cycle is None:
            return False  # asyncio closes the connection
        if not self._is_whole():
            self.data_received(b"")  # h11 raises its error, as the body is incomplete
        return True

    def send_400_response(self, msg: str) -> None:
        """Sends our own error for what h11 refuses; uvicorn calls this method while it handles h11's exception."""
        reason = str(sys.exception())
        refusals = (refusal for part, refusal in _REFUSALS.items() if part in reason)
        response = error_response(*next(refusals, (400, msg)))
        start = h11.Response(status_code=response.status_code, headers=response.raw_headers)
        for event in (start, h11.Data(data=response.body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        self.transport.close()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._deadline.cancel()
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def shutdown(self) -> None:
        if self._is_whole():
            super().shutdown()
        else:
            self.transport.close()

    def _is_whole(self) -> bool:
        return self.cycle is not None and not self.cycle.more_body

    def _close_unless_whole(self) -> None:
        if not self._is_whole():
            self.transport.close()
