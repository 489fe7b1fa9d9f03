"""The client for asyncio: the methods of `Client`, awaited."""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import AsyncIterator, Iterable

import numpy as np

from sqz_keras.extras import needs

with needs("client"):
    import grpc
    import grpc.aio
    from google.protobuf.message import Message

from export.client import images as client_images
from export.client.base import BaseClient
from export.client.connection import Attempts, check_stream, serving_error
from export.client.exchange import Prediction, Result, Steps, available_versions


class AsyncClient(BaseClient):
    """`Client` for asyncio: arguments, results, errors and retries are the same.

    Create it in a coroutine and close it there, or use it in an `async with` statement. Images are read and encoded in
    threads, so that the event loop keeps running.

    Args:
        target: "host:port".
        model_name: The model's name on the server.
        model_version: A version, or None for the newest.
        timeout_seconds: Time limit of each call, including its retries.
        credentials: From `grpc.ssl_channel_credentials`, if the server uses TLS.
        server_name: The name in the server's certificate, if it is not the target's host.
    """

    _grpc_module = grpc.aio

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_) -> None:
        await self.close()

    async def close(self) -> None:
        """As `Client.close`."""
        await self._channel.close()

    async def wait_until_ready(self, timeout_seconds: float = 60.0) -> None:
        """As `Client.wait_until_ready`."""
        deadline = time.monotonic() + timeout_seconds
        while not await self._available_versions(left := max(0.0, deadline - time.monotonic()), wait_for_ready=True):
            await asyncio.sleep(min(0.1, left))

    async def available_versions(self) -> list[int]:
        """As `Client.available_versions`."""
        return await self._available_versions(self._timeout_seconds)

    async def predict(self, images: client_images.Images) -> list[Prediction]:
        """As `Client.predict`."""
        return await self._run(self._exchange.predict(await asyncio.to_thread(client_images.as_list, images)))

    async def predict_stream(
        self, images: Iterable[client_images.Image], *, batch_size: int = 16, calls: int = 4
    ) -> AsyncIterator[Prediction]:
        """As `Client.predict_stream`, for `async for`; `images` is advanced in threads, one image at a time."""
        check_stream(batch_size, calls)
        chunks = client_images.chunks(images, batch_size)
        running: collections.deque[asyncio.Task[list[Prediction]]] = collections.deque()
        try:
            while batch := await asyncio.to_thread(next, chunks, None):
                running.append(asyncio.create_task(self.predict(batch)))
                while running and (len(running) == calls or running[0].done()):
                    for prediction in await running[0]:
                        yield prediction
                    running.popleft()
            while running:
                for prediction in await running[0]:
                    yield prediction
                running.popleft()
        finally:
            for call in running:
                call.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def features(self, images: client_images.Images) -> np.ndarray:
        """As `Client.features`."""
        return await self._run(self._exchange.features(await asyncio.to_thread(client_images.as_arrays, images)))

    async def classify(self, images: client_images.Images) -> list[list[tuple[str, float]]]:
        """As `Client.classify`."""
        return await self._run(self._exchange.classify(await asyncio.to_thread(client_images.as_files, images)))

    async def signatures(self) -> dict[str, Message]:
        """As `Client.signatures`."""
        return await self._run(self._exchange.signatures())

    async def _run(self, steps: Steps[Result]) -> Result:
        try:
            request = next(steps)
            while True:
                request = steps.send(await self._send(request))
        except StopIteration as end:
            return end.value

    async def _send(self, request: Message) -> Message:
        attempts = Attempts(self._target, self._timeout_seconds)
        while True:
            try:
                return await self._calls[type(request)](request, timeout=attempts.seconds_left())
            except grpc.RpcError as error:
                pause = attempts.pause_after(error)
            await asyncio.sleep(pause)

    async def _available_versions(self, timeout_seconds: float, wait_for_ready: bool = False) -> list[int]:
        request = self._exchange.status_request()
        try:
            call = self._calls[type(request)]
            return available_versions(await call(request, timeout=timeout_seconds, wait_for_ready=wait_for_ready))
        except grpc.RpcError as error:
            raise serving_error(self._target, error) from error
