"""How a client reaches its server: the channel, the calls, which calls are retried, and what their errors say."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable

import grpc
from google.protobuf.message import Message

from export import contract
from export.client import messages
from export.client.large_request import EncodedPredictRequest

# Type of request -> (call, type of response).
_METHODS: dict[type, tuple[str, type[Message]]] = {
    messages.PredictRequest: ("PredictionService/Predict", messages.PredictResponse),
    EncodedPredictRequest: ("PredictionService/Predict", messages.PredictResponse),
    messages.ClassificationRequest: ("PredictionService/Classify", messages.ClassificationResponse),
    messages.GetModelMetadataRequest: ("PredictionService/GetModelMetadata", messages.GetModelMetadataResponse),
    messages.GetModelStatusRequest: ("ModelService/GetModelStatus", messages.GetModelStatusResponse),
}
_REMEDIES = {
    grpc.StatusCode.UNAVAILABLE: "Is a server running there, with TLS or without as here? sqz-serve starts one.",
    grpc.StatusCode.DEADLINE_EXCEEDED: "Allow more time with timeout_seconds, or send fewer images at once.",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "The server is busy, or the call too large: try again later, or send less.",
}
_OTHER_NAMES = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:", "vsock:", "xds:")
_ADDRESS = re.compile(r"(?:[^\s:/\[\]]+|\[[^\s/\[\]]+\]):([0-9]{1,5})")
_LONGEST_TIMEOUT_SECONDS = 1_000_000_000
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 2.0


class ServingError(OSError):
    """A call that the server refused, that it did not answer in time, or that failed.

    Args:
        code: The gRPC status code.
        message: What happened, and what to do about it.
    """

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code


def check_timeout(timeout_seconds: float) -> None:
    """Raises a ValueError for a time limit that no call could meet, or that gRPC would take to be in the past."""
    if not 0 < timeout_seconds < _LONGEST_TIMEOUT_SECONDS:
        raise ValueError(
            f"timeout_seconds must be above 0 and below {_LONGEST_TIMEOUT_SECONDS:,}, got {timeout_seconds}."
        )


def check_target(target: str) -> None:
    """Raises a ValueError if the target is not an address. gRPC would use port 443, or retry until the deadline.

    Names that gRPC resolves by other means, such as "unix:/tmp/socket" or "dns:///host:8500", are left to gRPC.
    """
    if target.startswith(_OTHER_NAMES):
        return
    address = _ADDRESS.fullmatch(target)
    if address is None or not 1 <= int(address[1]) <= 65535:
        raise ValueError(f"The server must be HOST:PORT without http://, such as 127.0.0.1:8500, got {target!r}.")


def check_stream(batch_size: int, calls: int) -> None:
    """Raises a ValueError for limits that would let a stream send nothing."""
    if batch_size < 1 or calls < 1:
        raise ValueError(f"A stream needs a batch_size and calls of at least 1, got {batch_size} and {calls}.")


def open_channel(grpc_or_aio, target: str, credentials: grpc.ChannelCredentials | None, server_name: str | None):
    """A channel for the contract's messages, which reconnects soon after a server is restarted.

    Args:
        grpc_or_aio: The module `grpc` or `grpc.aio`.
        target: "host:port".
        credentials: For TLS; None for a connection without it.
        server_name: The name in the server's certificate, if it is not the target's host.

    Raises:
        ValueError: `server_name` is given without `credentials`.
    """
    if server_name and not credentials:
        raise ValueError("server_name is for TLS: give credentials too, such as grpc.ssl_channel_credentials(...).")
    options = [
        ("grpc.max_receive_message_length", contract.MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", contract.MAX_MESSAGE_BYTES),
        ("grpc.enable_http_proxy", 0),  # a web proxy named in the environment is not meant for gRPC
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1000),
        ("grpc.max_reconnect_backoff_ms", int(_LONGEST_PAUSE_SECONDS * 1000)),
        # A server that disappears without closing its connection is noticed within 25 s, and its calls then end as
        # UNAVAILABLE. Pings are sent only during calls: servers close connections that send pings without calls.
        ("grpc.keepalive_time_ms", 15_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 0),
    ]
    if server_name:
        options.append(("grpc.ssl_target_name_override", server_name))
    if credentials:
        return grpc_or_aio.secure_channel(target, credentials, options)
    return grpc_or_aio.insecure_channel(target, options)


def calls_by_request(channel) -> dict[type, Callable]:
    """For each type of request, the function that makes its call on a channel."""
    return {
        request: channel.unary_unary(
            f"/tensorflow.serving.{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        for request, (method, response) in _METHODS.items()
    }


class Attempts:
    """The attempts at one call, until its deadline.

    While the server is UNAVAILABLE, the call is retried after pauses that grow. No other error is retried, since the
    server may have done the work.
    """

    def __init__(self, target: str, timeout_seconds: float):
        self._target, self._deadline = target, time.monotonic() + timeout_seconds
        self._pause = _FIRST_PAUSE_SECONDS

    def seconds_left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    def pause_after(self, error: grpc.RpcError) -> float:
        """The seconds until the next attempt.

        Raises:
            ServingError: There is no further attempt.
        """
        wait = random.uniform(self._pause / 2, self._pause)  # so that clients do not all retry at the same moment
        if error.code() != grpc.StatusCode.UNAVAILABLE or wait >= self.seconds_left():
            raise serving_error(self._target, error) from error
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
        return wait


def serving_error(target: str, error: grpc.RpcError) -> ServingError:
    """The error that users see for a failed call."""
    message = f"{target}: {error.code().name}: {error.details()}"
    remedy = _REMEDIES.get(error.code())
    return ServingError(error.code(), f"{message.rstrip('.')}. {remedy}" if remedy else message)
