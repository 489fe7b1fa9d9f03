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
    """A call that the server refused, failed or did not answer in time; `code` is its gRPC status code."""

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the server says of one image.

    Args:
        status: "OK", or why the image could not be read; then the rest says nothing.
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
    """Asks one model of one server; close it, or use it in a `with` statement. Threads may share one.

    It keeps one channel open and reads the model's signatures once, so make one client for many images. Every call
    has a deadline. What the server cannot be reached for (UNAVAILABLE) is tried again until then, after pauses that
    grow and differ from client to client; nothing else is.

    Args:
        target: "host:port".
        model_name: the model's name on the server.
        model_version: a version, or None for the newest.
        timeout_seconds: for each call, its repetitions included.
        credentials: of `grpc.ssl_channel_credentials`, where the server speaks TLS.
        server_name: the name in the server's certificate, where it is not the target's host.
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
            ("grpc.enable_http_proxy", 0),  # a web proxy of the environment is not meant for this
            # A server that was restarted is found again soon.
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
        """Closes the channel; calls that run are cancelled."""
        self._channel.close()

    def wait_until_ready(self, timeout_seconds: float = 60.0) -> None:
        """Returns once the model can be asked.

        Raises:
            ServingError: it cannot after `timeout_seconds`, or the server does not know the model.
        """
        deadline = time.monotonic() + timeout_seconds
        while not self._available_versions(left := max(0.0, deadline - time.monotonic()), wait_for_ready=True):
            time.sleep(min(0.1, left))

    def available_versions(self) -> list[int]:
        """The versions of the model that can be asked now, ascending.

        Raises:
            ServingError: the server did not answer, or does not know the model.
        """
        return self._available_versions(self._timeout_seconds)

    def predict(self, asked: client_images.Images) -> list[Prediction]:
        """Classifies images, in as many calls as the contract's limits need.

        Args:
            asked: one image or a list of them, each the path or the content of an image file, a PIL image, or an
                array (H, W, 3), RGB in 0..255; or an array (N, H, W, 3). Whole images, not preprocessed.

        Returns:
            A prediction for each image, in their order; files that cannot be read say so in `status`.

        Raises:
            ValueError: what is no image, or too large for a request.
            OSError: a file cannot be opened.
            ServingError: the server did not answer, or not as the contract says.
        """
        predictions: list[Prediction] = []
        for batch in client_images.batches(client_images.as_list(asked)):
            signature = contract.SERVE_BYTES if isinstance(batch[0], bytes) else contract.SERVING_DEFAULT
            predictions += _predictions(self._ask(signature, batch))
        return predictions

    def features(self, asked: client_images.Images) -> np.ndarray:
        """The pooled activations before the classifier, float32 (N, channels); 512 channels in v1.0 and v1.1.

        Arguments and errors are those of `predict`, but a file that cannot be read is a ValueError.
        """
        arrays = [client_images.decode(each) for each in client_images.as_list(asked)]
        signature = contract.FEATURES_SIGNATURE
        found = [self._ask(signature, batch)[contract.FEATURES.name] for batch in client_images.batches(arrays)]
        return np.concatenate(found)

    def classify(self, asked: client_images.Images) -> list[list[tuple[str, float]]]:
        """(class, score) of the best classes of each image, by TensorFlow Serving's Classify.

        Arguments and errors are those of `predict`. A file that cannot be read has empty names, and scores of 0.
        """
        self._check_signature(contract.CLASSIFY)
        found = []
        for batch in client_images.batches([client_images.encode(each) for each in client_images.as_list(asked)]):
            request = self._about_model(classification_pb2.ClassificationRequest(), contract.CLASSIFY.name)
            for data in batch:
                example = request.input.example_list.examples.add()
                example.features.feature[contract.EXAMPLE_FEATURE].bytes_list.value.append(data)
            answers = self._send(self._service.Classify, request).result.classifications
            self._check_count(len(answers), len(batch))
            found += [[(each.label, each.score) for each in answer.classes] for answer in answers]
        return found

    def signatures(self) -> dict[str, meta_graph_pb2.SignatureDef]:
        """The served model's signatures by name; asked for once.

        Raises:
            ServingError: the server did not answer.
        """
        if self._signatures is None:
            request = self._about_model(get_model_metadata_pb2.GetModelMetadataRequest())
            request.metadata_field.append("signature_def")
            found = get_model_metadata_pb2.SignatureDefMap()
            self._send(self._service.GetModelMetadata, request).metadata["signature_def"].Unpack(found)
            self._signatures = {
                name: signature for name, signature in found.signature_def.items() if not name.startswith("__")
            }
        return self._signatures

    def _available_versions(self, timeout_seconds: float, wait_for_ready: bool = False) -> list[int]:
        request = self._about_model(get_model_status_pb2.GetModelStatusRequest())
        with self._clear_errors():
            response = self._get_model_status(request, timeout=timeout_seconds, wait_for_ready=wait_for_ready)
        states = response.model_version_status
        return sorted(each.version for each in states if each.state == each.AVAILABLE and not each.status.error_code)

    def _ask(self, signature: contract.Signature, batch: Sequence[bytes] | Sequence[np.ndarray]) -> dict:
        """One Predict call: its outputs by name, arrays with a row an image."""
        self._check_signature(signature)
        request = self._about_model(predict_pb2.PredictRequest(), signature.name)
        _fill(request.inputs[signature.input.name], batch)
        response = self._send(self._service.Predict, request)
        outputs = {output.name: tf.make_ndarray(response.outputs[output.name]) for output in signature.outputs}
        for value in outputs.values():
            self._check_count(len(value), len(batch))
        return outputs

    def _check_signature(self, signature: contract.Signature) -> None:
        """Holds the served model against the contract, before anything is sent to it."""
        found = self.signatures().get(signature.name)
        if found is not None:
            dtypes = {name: tf.as_dtype(info.dtype).name for name, info in found.inputs.items()}
            outputs = {output.name for output in signature.outputs}
            if dtypes == {signature.input.name: signature.input.dtype} and outputs <= set(found.outputs):
                return
        raise self._unexpected(
            f"{self.model_name!r} lacks the signature {signature.name!r} of the contract; it has "
            f"{sorted(self.signatures())}. Export the model again with sqz-export."
        )

    def _check_count(self, got: int, sent: int) -> None:
        if got != sent:
            raise self._unexpected(f"{got} answers for {sent} images.")

    def _unexpected(self, message: str) -> ServingError:
        return ServingError(grpc.StatusCode.FAILED_PRECONDITION, f"{self._target}: {message}")

    def _about_model(self, request, signature_name: str = ""):
        request.model_spec.name, request.model_spec.signature_name = self.model_name, signature_name
        if self._model_version is not None:
            request.model_spec.version.value = self._model_version
        return request

    def _send(self, call: Callable, request):
        """Calls, and calls again for as long as the server is UNAVAILABLE and the deadline is not near."""
        deadline = time.monotonic() + self._timeout_seconds
        pause = _FIRST_PAUSE_SECONDS
        with self._clear_errors():
            while True:
                try:
                    return call(request, timeout=max(0.0, deadline - time.monotonic()))
                except grpc.RpcError as error:
                    wait = random.uniform(pause / 2, pause)  # clients of one failed server come back apart
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
    """Writes a batch where it is sent from; `tf.make_tensor_proto` would copy images twice more."""
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
