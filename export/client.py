"""A client of the serving contract, for sqz-serve and for TensorFlow Serving."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from export import contract

_REMEDIES = {
    grpc.StatusCode.UNAVAILABLE: "Is a server running there? Start one with sqz-serve.",
    grpc.StatusCode.DEADLINE_EXCEEDED: "Allow more time with timeout_seconds, or send fewer pictures at once.",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "The server is busy, or the call too large: try again later, or send less.",
}
_OVERHEAD_BYTES = 1 << 16  # of a request, beside its pictures


class ServingError(OSError):
    """A call that the server refused, failed or did not answer in time; `code` is its gRPC status code."""

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the server says of one picture.

    Args:
        status: "OK", or why the picture could not be read; then the rest says nothing.
        classes: names of the classes with the highest scores, best first.
        class_ids: their indices.
        scores: their probabilities, in [0, 1].
        probabilities: of all classes, float32 (classes,).
    """

    status: str
    classes: tuple[str, ...]
    class_ids: tuple[int, ...]
    scores: tuple[float, ...]
    probabilities: np.ndarray = dataclasses.field(repr=False, compare=False)


class Client:
    """Asks one model of one server, over one channel; close it, or use it in a `with` statement.

    Args:
        target: "host:port".
        model_name: the model's name on the server.
        model_version: a version, or None for the newest.
        timeout_seconds: for each call.
    """

    def __init__(
        self,
        target: str,
        *,
        model_name: str = contract.MODEL_NAME,
        model_version: int | None = None,
        timeout_seconds: float = 30.0,
    ):
        if timeout_seconds <= 0:
            raise ValueError(f"timeout_seconds must be above 0, got {timeout_seconds}.")
        self._target, self._model_name, self._model_version = target, model_name, model_version
        self._timeout_seconds = timeout_seconds
        self._channel = grpc.insecure_channel(
            target,
            options=[
                ("grpc.max_receive_message_length", contract.MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", contract.MAX_MESSAGE_BYTES),
                ("grpc.enable_http_proxy", 0),  # a web proxy of the environment is not meant for this
            ],
        )
        self._predict = prediction_service_pb2_grpc.PredictionServiceStub(self._channel).Predict
        self._get_model_status = model_service_pb2_grpc.ModelServiceStub(self._channel).GetModelStatus

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Closes the channel; calls that run are cancelled."""
        self._channel.close()

    def wait_until_ready(self, timeout_seconds: float = 60.0) -> None:
        """Returns once the model can be asked.

        Raises:
            ServingError: it cannot after `timeout_seconds`, or the server does not know the model.
        """
        request = get_model_status_pb2.GetModelStatusRequest()
        self._fill(request.model_spec)
        deadline = time.monotonic() + timeout_seconds
        while True:
            left = max(0.0, deadline - time.monotonic())
            with self._clear_errors():
                response = self._get_model_status(request, timeout=left, wait_for_ready=True)
            if any(
                version.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE and not version.status.error_code
                for version in response.model_version_status
            ):
                return
            time.sleep(min(0.1, left))

    def predict_bytes(self, pictures: Sequence[bytes]) -> list[Prediction]:
        """Classifies encoded pictures, as many calls as the contract's limits need.

        Args:
            pictures: contents of JPEG or PNG files.

        Returns:
            A prediction for each picture, in their order; those that cannot be read say so in `status`.

        Raises:
            ValueError: no pictures, one that is no `bytes`, or one that is too large for a request.
            ServingError: the server did not answer, or not as the contract says.
        """
        if isinstance(pictures, bytes | str) or not all(isinstance(picture, bytes) for picture in pictures):
            raise ValueError("pictures must be a list of bytes, each the content of a JPEG or PNG file.")
        results = []
        for batch in _batches(pictures, [len(picture) for picture in pictures]):
            results += self._call(contract.SERVE_BYTES, tf.make_tensor_proto(batch, tf.string))
        return results

    def predict_images(self, images: np.ndarray) -> list[Prediction]:
        """Classifies decoded pictures of one size, as many calls as the contract's limits need.

        Args:
            images: (N, H, W, 3), RGB in 0..255, any numeric dtype; whole pictures, not preprocessed.

        Returns:
            A prediction for each picture, in their order.

        Raises:
            ValueError: another shape or range of values, or a picture that is too large for a request.
            ServingError: the server did not answer, or not as the contract says.
        """
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[3] != 3 or images.size == 0 or images.dtype.kind not in "uif":
            raise ValueError(f"images must be numbers (N, H, W, 3), got {images.dtype} {images.shape}.")
        if not (images.min() >= 0 and images.max() <= 255):
            raise ValueError(f"images must be RGB in 0..255, got values in {images.min()}..{images.max()}.")
        images = images.astype(np.float32)
        results = []
        for batch in _batches(images, [images[0].nbytes] * len(images)):
            results += self._call(contract.SERVING_DEFAULT, tf.make_tensor_proto(np.stack(batch)))
        return results

    def _fill(self, model_spec) -> None:
        model_spec.name = self._model_name
        if self._model_version is not None:
            model_spec.version.value = self._model_version

    def _call(self, signature: contract.Signature, tensor) -> list[Prediction]:
        request = predict_pb2.PredictRequest()
        self._fill(request.model_spec)
        request.model_spec.signature_name = signature.name
        request.inputs[signature.input.name].CopyFrom(tensor)
        with self._clear_errors():
            response = self._predict(request, timeout=self._timeout_seconds)
        missing = [output.name for output in signature.outputs if output.name not in response.outputs]
        if missing:
            raise ServingError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"{self._target}: the answer lacks {missing}; {self._model_name!r} is no model that sqz-export wrote.",
            )
        outputs = {output.name: tf.make_ndarray(response.outputs[output.name]) for output in signature.outputs}
        count = len(outputs[contract.PROBABILITIES.name])
        status = outputs.get(contract.STATUS.name, [contract.STATUS_OK.encode()] * count)
        return [
            Prediction(
                status=status[row].decode(),
                classes=tuple(name.decode() for name in outputs[contract.CLASSES.name][row]),
                class_ids=tuple(outputs[contract.CLASS_IDS.name][row].tolist()),
                scores=tuple(outputs[contract.SCORES.name][row].tolist()),
                probabilities=outputs[contract.PROBABILITIES.name][row],
            )
            for row in range(count)
        ]

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            remedy = _REMEDIES.get(error.code(), "")
            raise ServingError(
                error.code(), f"{self._target}: {error.code().name}: {error.details()} {remedy}".rstrip()
            ) from error


def _batches(pictures: Sequence, sizes: Sequence[int]) -> Iterator[list]:
    """Runs of pictures that fit one request by number and bytes."""
    limit = contract.MAX_MESSAGE_BYTES - _OVERHEAD_BYTES
    if not len(pictures):
        raise ValueError("Give at least one picture.")
    if max(sizes) > limit:
        raise ValueError(
            f"A picture has {max(sizes)} bytes, and a request at most {limit}: send it smaller or encoded."
        )
    batch, used = [], 0
    for picture, size in zip(pictures, sizes, strict=True):
        if batch and (len(batch) == contract.MAX_BATCH_SIZE or used + size > limit):
            yield batch
            batch, used = [], 0
        batch.append(picture)
        used += size
    yield batch
