"""A client of the serving contract, for sqz-serve and for TensorFlow Serving. It does not need TensorFlow."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator

import numpy as np

from sqz_keras.extras import needs

with needs("client"):
    import grpc
    from google.protobuf.message import Message

from export.client import images as client_images
from export.client.base import BaseClient
from export.client.connection import Attempts, ServingError, check_stream, serving_error
from export.client.exchange import Prediction, Result, Steps, available_versions
from export.client.in_order import in_order

__all__ = ["Client", "Prediction", "ServingError"]


class Client(BaseClient):
    """Sends images to one model of one server. Threads may share a client; close it, or use it in a `with` statement.

    It keeps one channel open and reads the model's signatures once, so use one client for many images. Every call
    has a deadline. While the server cannot be reached (UNAVAILABLE), the call is retried until its deadline. The
    pauses between attempts grow, and differ from client to client. No other error is retried.

    Args:
        target: "host:port".
        model_name: The model's name on the server.
        model_version: A version, or None for the newest.
        timeout_seconds: Time limit of each call, including its retries.
        credentials: From `grpc.ssl_channel_credentials`, if the server uses TLS.
        server_name: The name in the server's certificate, if it is not the target's host.
    """

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Closes the channel and cancels the calls that are running."""
        self._channel.close()

    def wait_until_ready(self, timeout_seconds: float = 60.0) -> None:
        """Returns once the server has a version of the model ready.

        Args:
            timeout_seconds: How long to wait.

        Raises:
            ServingError: No version is ready after `timeout_seconds`, or the server does not serve this model.
        """
        deadline = time.monotonic() + timeout_seconds
        while not self._available_versions(left := max(0.0, deadline - time.monotonic()), wait_for_ready=True):
            time.sleep(min(0.1, left))

    def available_versions(self) -> list[int]:
        """The versions of the model that are ready now, ascending.

        Raises:
            ServingError: The server did not answer, or does not serve this model.
        """
        return self._available_versions(self._timeout_seconds)

    def predict(self, images: client_images.Images) -> list[Prediction]:
        """Classifies images, in as many calls as the contract's limits require.

        Args:
            images: One image or a list of images. An image is the path of an image file, its content, the file opened
                for reading in binary mode, a PIL image, or an array (H, W, 3), RGB in 0..255. An array
                (N, H, W, 3) is N images. Give whole images, not preprocessed ones.

        Returns:
            A prediction for each image, in order; `status` says which files could not be read.

        Raises:
            ValueError: Something is not an image, or is too large for a request.
            OSError: A file cannot be opened.
            ServingError: The server did not answer, or its answer does not follow the contract.
        """
        return self._run(self._exchange.predict(client_images.as_list(images)))

    def predict_stream(
        self, images: Iterable[client_images.Image], *, batch_size: int = 16, calls: int = 4
    ) -> Iterator[Prediction]:
        """Classifies any number of images, and yields the predictions in the order of the images, as they arrive.

        At most `batch_size` * `calls` images are held at a time. Raises what `predict` raises; the first error ends
        the stream.

        Args:
            images: Images, in any of the forms that `predict` takes.
            batch_size: How many images are sent in a call.
            calls: How many calls run at once.

        Yields:
            A prediction for each image, as `predict` returns it.
        """
        check_stream(batch_size, calls)
        chunks = client_images.chunks(images, batch_size)
        with contextlib.closing(in_order(self.predict, chunks, threads=calls, most=calls)) as batches:
            for predictions in batches:
                yield from predictions

    def features(self, images: client_images.Images) -> np.ndarray:
        """The pooled activations before the classifier.

        Raises what `predict` raises, and also a ValueError for a file that cannot be read.

        Args:
            images: As in `predict`.

        Returns:
            Float32 (N, channels); 512 channels in v1.0 and v1.1.
        """
        return self._run(self._exchange.features(client_images.as_arrays(images)))

    def classify(self, images: client_images.Images) -> list[list[tuple[str, float]]]:
        """The best classes, from TensorFlow Serving's Classify. Raises what `predict` raises.

        Args:
            images: As in `predict`.

        Returns:
            (class, score) of the best classes of each image. A file that cannot be read gets empty names and scores
            of 0.
        """
        return self._run(self._exchange.classify(client_images.as_files(images)))

    def signatures(self) -> dict[str, Message]:
        """The served model's signatures, SignatureDef messages by name. They are read once.

        Raises:
            ServingError: The server did not answer.
        """
        return self._run(self._exchange.signatures())

    def _run(self, steps: Steps[Result]) -> Result:
        """Makes the calls of an exchange, one after another."""
        try:
            request = next(steps)
            while True:
                request = steps.send(self._send(request))
        except StopIteration as end:
            return end.value

    def _send(self, request: Message) -> Message:
        attempts = Attempts(self._target, self._timeout_seconds)
        while True:
            try:
                return self._calls[type(request)](request, timeout=attempts.seconds_left())
            except grpc.RpcError as error:
                pause = attempts.pause_after(error)
            time.sleep(pause)

    def _available_versions(self, timeout_seconds: float, wait_for_ready: bool = False) -> list[int]:
        request = self._exchange.status_request()
        try:
            call = self._calls[type(request)]
            return available_versions(call(request, timeout=timeout_seconds, wait_for_ready=wait_for_ready))
        except grpc.RpcError as error:
            raise serving_error(self._target, error) from error
