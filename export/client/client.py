"""A client of the serving contract, for sqz-serve and for TensorFlow Serving."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import time
from collections.abc import Callable, Iterator, Sequence

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from export import contract
from export.client import images as client_images

_REMEDIES = {
    grpc.StatusCode.UNAVAILABLE: "Is a server running there, with TLS or without as here? sqz-serve starts one.",
    grpc.StatusCode.DEADLINE_EXCEEDED: "Allow more time with timeout_seconds, or send fewer images at once.",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "The server is busy, or the call too large: try again later, or send less.",
}
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 2.0


class ServingError(OSError):
    """A call that the server refused or did not answer in time, or that failed; `code` is its gRPC status code."""

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The server's answer for one image.

    Args:
        status: "OK", or the reason why the image could not be read; the other fields are then without meaning.
        classes: Names of the classes with the highest scores, best first.
        class_ids: Their indices.
        scores: Their probabilities, in [0, 1].
        probabilities: Probabilities of all classes, float32 (classes,).
    """

    status: str
    classes: tuple[str, ...]
    class_ids: tuple[int, ...]
    scores: tuple[float, ...]
    probabilities: np.ndarray = dataclasses.field(repr=False, compare=False)


class Client:
    """Sends images to one model of one server. Threads may share a client; close it, or use it in a `with` statement.

    It keeps one channel open and reads the model's signatures once, so make one client for many images. Every call
    has a deadline. While the server cannot be reached (UNAVAILABLE), the call is retried until its deadline, after
    pauses that grow and that differ from client to client. No other error is retried.

    Args:
        target: "host:port".
        model_name: The model's name on the server.
        model_version: A version, or None for the newest.
        timeout_seconds: Time limit of each call, with its retries.
        credentials: From `grpc.ssl_channel_credentials`, where the server speaks TLS.
        server_name: The name in the server's certificate, where it is not the target's host.
    """

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
        if timeout_seconds <= 0:
            raise ValueError(f"timeout_seconds must be above 0, got {timeout_seconds}.")
        self.model_name = model_name
        self._target, self._model_version = target, model_version
        self._timeout_seconds = timeout_seconds
        options = [
            ("grpc.max_receive_message_length", contract.MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", contract.MAX_MESSAGE_BYTES),
            ("grpc.enable_http_proxy", 0),  # a web proxy that the environment names is not for gRPC
            # So that a restarted server is reached soon.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 1000),
            ("grpc.max_reconnect_backoff_ms", int(_LONGEST_PAUSE_SECONDS * 1000)),
        ]
        if server_name:
            options.append(("grpc.ssl_target_name_override", server_name))
        if credentials:
            self._channel = grpc.secure_channel(target, credentials, options)
        else:
            self._channel = grpc.insecure_channel(target, options)
        self._service = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._get_model_status = model_service_pb2_grpc.ModelServiceStub(self._channel).GetModelStatus
        self._signatures: dict[str, meta_graph_pb2.SignatureDef] | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Closes the channel and cancels the calls that are running."""
        self._channel.close()

    def wait_until_ready(self, timeout_seconds: float = 60.0) -> None:
        """Returns once the server has a version of the model ready.

        Raises:
            ServingError: It has none after `timeout_seconds`, or does not serve this model.
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
        """Classifies images, in as many calls as the contract's limits need.

        Args:
            images: One image or a list of them. An image is the path of an image file, its content, the file opened
                for reading in binary mode, a PIL image, or an array (H, W, 3), RGB in 0..255. An array
                (N, H, W, 3) is N images. Whole images, not preprocessed.

        Returns:
            A prediction for each image, in their order; `status` says which files could not be read.

        Raises:
            ValueError: Something is not an image, or is too large for a request.
            OSError: A file cannot be opened.
            ServingError: The server did not answer, or not as the contract says.
        """
        predictions: list[Prediction] = []
        for batch in client_images.batches(client_images.as_list(images)):
            signature = contract.SERVE_BYTES if isinstance(batch[0], bytes) else contract.SERVING_DEFAULT
            predictions += _predictions(self._predict(signature, batch))
        return predictions

    def features(self, images: client_images.Images) -> np.ndarray:
        """The pooled activations before the classifier, float32 (N, channels); 512 channels in v1.0 and v1.1.

        Arguments and errors are those of `predict`, but a file that cannot be read raises a ValueError.
        """
        arrays = [client_images.decode(image) for image in client_images.as_list(images)]
        signature, name = contract.FEATURES_SIGNATURE, contract.FEATURES.name
        return np.concatenate([self._predict(signature, batch)[name] for batch in client_images.batches(arrays)])

    def classify(self, images: client_images.Images) -> list[list[tuple[str, float]]]:
        """(class, score) of the best classes of each image, by TensorFlow Serving's Classify.

        Arguments and errors are those of `predict`. A file that cannot be read has empty names, and scores of 0.
        """
        self._check_signature(contract.CLASSIFY)
        results = []
        for batch in client_images.batches([client_images.encode(image) for image in client_images.as_list(images)]):
            request = self._about_model(classification_pb2.ClassificationRequest(), contract.CLASSIFY.name)
            for data in batch:
                example = request.input.example_list.examples.add()
                example.features.feature[contract.EXAMPLE_FEATURE].bytes_list.value.append(data)
            classifications = self._send(self._service.Classify, request).result.classifications
            self._check_count(len(classifications), len(batch))
            results += [[(best.label, best.score) for best in image.classes] for image in classifications]
        return results

    def signatures(self) -> dict[str, meta_graph_pb2.SignatureDef]:
        """The served model's signatures by name, which are read once.

        Raises:
            ServingError: The server did not answer.
        """
        if self._signatures is None:
            request = self._about_model(get_model_metadata_pb2.GetModelMetadataRequest())
            request.metadata_field.append("signature_def")
            served = get_model_metadata_pb2.SignatureDefMap()
            self._send(self._service.GetModelMetadata, request).metadata["signature_def"].Unpack(served)
            self._signatures = {
                name: signature for name, signature in served.signature_def.items() if not name.startswith("__")
            }
        return self._signatures

    def _available_versions(self, timeout_seconds: float, wait_for_ready: bool = False) -> list[int]:
        request = self._about_model(get_model_status_pb2.GetModelStatusRequest())
        with self._clear_errors():
            response = self._get_model_status(request, timeout=timeout_seconds, wait_for_ready=wait_for_ready)
        states = response.model_version_status
        available = [state for state in states if state.state == state.AVAILABLE and not state.status.error_code]
        return sorted(state.version for state in available)

    def _predict(self, signature: contract.Signature, batch: Sequence[bytes] | Sequence[np.ndarray]) -> dict:
        """Makes one Predict call, and gives its outputs by name: arrays with a row for each image."""
        self._check_signature(signature)
        request = self._about_model(predict_pb2.PredictRequest(), signature.name)
        _fill(request.inputs[signature.input.name], batch)
        response = self._send(self._service.Predict, request)
        outputs = {output.name: tf.make_ndarray(response.outputs[output.name]) for output in signature.outputs}
        for value in outputs.values():
            self._check_count(len(value), len(batch))
        return outputs

    def _check_signature(self, signature: contract.Signature) -> None:
        """Compares the served model's signature with the contract, before anything is sent to it."""
        served = self.signatures().get(signature.name)
        if served is not None:
            dtypes = {name: tf.as_dtype(info.dtype).name for name, info in served.inputs.items()}
            outputs = {output.name for output in signature.outputs}
            if dtypes == {signature.input.name: signature.input.dtype} and outputs <= set(served.outputs):
                return
        raise self._unexpected(
            f"{self.model_name!r} lacks the signature {signature.name!r} of the contract; it has "
            f"{sorted(self.signatures())}. Export the model again with sqz-export."
        )

    def _check_count(self, answers: int, images: int) -> None:
        if answers != images:
            raise self._unexpected(f"expected {images} answers, one for each image; got {answers}.")

    def _unexpected(self, message: str) -> ServingError:
        return ServingError(grpc.StatusCode.FAILED_PRECONDITION, f"{self._target}: {message}")

    def _about_model(self, request, signature_name: str = ""):
        request.model_spec.name, request.model_spec.signature_name = self.model_name, signature_name
        if self._model_version is not None:
            request.model_spec.version.value = self._model_version
        return request

    def _send(self, call: Callable, request):
        """Makes a call, and retries it while the server is UNAVAILABLE and there is time left."""
        deadline = time.monotonic() + self._timeout_seconds
        pause = _FIRST_PAUSE_SECONDS
        with self._clear_errors():
            while True:
                try:
                    return call(request, timeout=max(0.0, deadline - time.monotonic()))
                except grpc.RpcError as error:
                    wait = random.uniform(pause / 2, pause)  # so that the server's clients return apart
                    if error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() + wait >= deadline:
                        raise
                time.sleep(wait)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            remedy = _REMEDIES.get(error.code(), "")
            raise ServingError(
                error.code(), f"{self._target}: {error.code().name}: {error.details()} {remedy}".rstrip()
            ) from error


def _fill(tensor, batch: Sequence[bytes] | Sequence[np.ndarray]) -> None:
    """Writes a batch into a request's tensor; `tf.make_tensor_proto` would copy the images twice more."""
    shape = (len(batch),)
    if isinstance(batch[0], bytes):
        tensor.dtype = types_pb2.DT_STRING
        tensor.string_val.extend(batch)
    else:
        tensor.dtype = types_pb2.DT_FLOAT
        tensor.tensor_content = b"".join(np.ascontiguousarray(image).data for image in batch)
        shape += batch[0].shape
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)


def _predictions(outputs: dict[str, np.ndarray]) -> list[Prediction]:
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
