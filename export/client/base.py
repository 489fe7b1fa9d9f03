"""What `Client` and `AsyncClient` share: the arguments, the channel, and the requests about the model."""

from __future__ import annotations

import grpc

from export import contract
from export.client.connection import calls_by_request, check_target, check_timeout, open_channel
from export.client.exchange import Exchange


class BaseClient:
    """Opens a channel with `_grpc_module`, which is `grpc` or `grpc.aio`; takes the arguments of `Client`."""

    _grpc_module = grpc

    def __init__(
        self,
        target: str,
        *,
        model_name: str = contract.MODEL_NAME,
        model_version: int | None = None,
        timeout_seconds: float = 30.0,
        credentials: grpc.ChannelCredentials | None = None,
        server_name: str | None = None,
    ):
        check_target(target)
        check_timeout(timeout_seconds)
        self.model_name = model_name
        self._target, self._timeout_seconds = target, timeout_seconds
        self._exchange = Exchange(target, model_name, model_version)
        self._channel = open_channel(self._grpc_module, target, credentials, server_name)
        self._calls = calls_by_request(self._channel)
