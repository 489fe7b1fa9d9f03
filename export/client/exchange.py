"""What the client sends and how it reads the answers, however the calls are made.

A method of `Exchange` is a generator: it yields requests, receives their responses, and returns its result. `Client`
makes the calls and waits; `AsyncClient` awaits them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator, Sequence
from typing import TypeVar

import grpc
import numpy as np
from google.protobuf.message import Message

from export import contract
from export.client import images as client_images
from export.client import large_request, messages
from export.client.connection import ServingError

_DATA_TYPES = {"float32": messages.DT_FLOAT, "int32": messages.DT_INT32, "string": messages.DT_STRING}
_AVAILABLE = messages.ModelVersionStatus.State.Value("AVAILABLE")

Result = TypeVar("Result")
Steps = Generator[Message | large_request.EncodedPredictRequest, Message, Result]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The server's answer for one image.

    Args:
        status: "OK", or the reason why the image could not be read, in which case the other fields mean nothing.
        classes: Names of the classes with the highest scores, best first.
        class_ids: Their indices.
        scores: Their probabilities, in [0, 1].
        probabilities: Probabilities of all classes, float32 (classes,).
        model_version: The version that answered; 0 if the server does not say which.
    """

    status: str
    classes: tuple[str, ...]
    class_ids: tuple[int, ...]
    scores: tuple[float, ...]
    probabilities: np.ndarray = dataclasses.field(repr=False, compare=False)
    model_version: int = dataclasses.field(default=0, compare=False)


class Exchange:
    """Builds the requests about one model and reads the responses.

    The methods raise a ServingError if a response does not follow the contract.

    Args:
        target: "host:port", for errors.
        model_name: The model's name on the server.
        model_version: A version, or None for the newest.
    """

    def __init__(self, target: str, model_name: str, model_version: int | None):
        self.model_name = model_name
        self._target, self._model_version = target, model_version
        self._signatures: dict[str, Message] | None = None

    def predict(self, images: Sequence[bytes | np.ndarray]) -> Steps[list[Prediction]]:
        """A prediction for each image; `images` come from `client_images.as_list`."""
        predictions: list[Prediction] = []
        for batch in client_images.batches(images):
            signature = contract.SERVE_BYTES if isinstance(batch[0], bytes) else contract.SERVING_DEFAULT
            predictions += _predictions(*(yield from self._predict(signature, batch)))
        return predictions

    def features(self, images: Sequence[np.ndarray]) -> Steps[np.ndarray]:
        """The images' features, float32 (N, channels); `images` come from `client_images.as_arrays`."""
        features = []
        for batch in client_images.batches(images):
            outputs, _ = yield from self._predict(contract.FEATURES_SIGNATURE, batch)
            features.append(outputs[contract.FEATURES.name])
        return np.concatenate(features)

    def classify(self, images: Sequence[bytes]) -> Steps[list[list[tuple[str, float]]]]:
        """(class, score) of the best classes of each image; `images` come from `client_images.as_files`."""
        yield from self._check_signature(contract.CLASSIFY)
        results = []
        for batch in client_images.batches(images):
            request = self._about_model(messages.ClassificationRequest(), contract.CLASSIFY.name)
            for data in batch:
                example = request.input.example_list.examples.add()
                example.features.feature[contract.EXAMPLE_FEATURE].bytes_list.value.append(data)
            classifications = (yield request).result.classifications
            self._check_count(len(classifications), len(batch))
            results += [[(best.label, best.score) for best in image.classes] for image in classifications]
        return results

    def signatures(self) -> Steps[dict[str, Message]]:
        """The served model's signatures by name. They are read once."""
        if self._signatures is None:
            request = self._about_model(messages.GetModelMetadataRequest())
            request.metadata_field.append("signature_def")
            served = messages.SignatureDefMap.FromString((yield request).metadata["signature_def"].value)
            self._signatures = {
                name: signature for name, signature in served.signature_def.items() if not name.startswith("__")
            }
        return self._signatures

    def status_request(self) -> Message:
        """The request for the state of the model's versions."""
        return self._about_model(messages.GetModelStatusRequest())

    def _predict(self, signature: contract.Signature, batch: list) -> Steps[tuple[dict[str, np.ndarray], int]]:
        """The outputs of one Predict call by name, arrays with a row per image, and the version that answered."""
        yield from self._check_signature(signature)
        request = self._about_model(messages.PredictRequest(), signature.name)
        response = yield _with_batch(request, signature.input.name, batch)
        outputs = {}
        for output in signature.outputs:
            try:
                outputs[output.name] = to_array(response.outputs[output.name], output.dtype)
            except ValueError as error:
                raise self._unexpected(f"the output {output.name!r} {error}") from error
            self._check_count(len(outputs[output.name]), len(batch))
        return outputs, response.model_spec.version.value

    def _check_signature(self, signature: contract.Signature) -> Steps[None]:
        """Compares the served model's signature with the contract, before any image is sent."""
        signatures = yield from self.signatures()
        served = signatures.get(signature.name)
        if served is not None:
            dtypes = {name: info.dtype for name, info in served.inputs.items()}
            outputs = {output.name for output in signature.outputs}
            if dtypes == {signature.input.name: _DATA_TYPES[signature.input.dtype]} and outputs <= set(served.outputs):
                return
        raise self._unexpected(
            f"{self.model_name!r} lacks the signature {signature.name!r} of the contract; it has "
            f"{sorted(signatures)}. Export the model again with sqz-export."
        )

    def _check_count(self, answers: int, images: int) -> None:
        if answers != images:
            raise self._unexpected(f"expected {images} answers, one for each image; got {answers}.")

    def _unexpected(self, message: str) -> ServingError:
        return ServingError(grpc.StatusCode.FAILED_PRECONDITION, f"{self._target}: {message}")

    def _about_model(self, request: Message, signature_name: str = "") -> Message:
        request.model_spec.name, request.model_spec.signature_name = self.model_name, signature_name
        if self._model_version is not None:
            request.model_spec.version.value = self._model_version
        return request


def available_versions(response: Message) -> list[int]:
    """The versions, ascending, that the response to `Exchange.status_request` says are ready."""
    states = response.model_version_status
    return sorted(state.version for state in states if state.state == _AVAILABLE and not state.status.error_code)


def to_array(tensor: Message, dtype: str) -> np.ndarray:
    """The values of a TensorProto; strings as an array of bytes objects.

    Raises:
        ValueError: Its type is not `dtype`, its shape is too large, or its number of values does not fit its shape.
    """
    if tensor.dtype != _DATA_TYPES[dtype]:
        raise ValueError(f"is of the type {tensor.dtype}, not {dtype}.")
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    count = math.prod(shape)
    if count > contract.MAX_MESSAGE_BYTES:
        raise ValueError(f"has too large a shape, {shape}.")
    if tensor.tensor_content and dtype != "string":
        values = np.frombuffer(tensor.tensor_content, np.dtype(dtype).newbyteorder("<")).astype(dtype)
    else:
        sent = {"float32": tensor.float_val, "int32": tensor.int_val, "string": tensor.string_val}[dtype]
        values = np.array(sent, object if dtype == "string" else dtype)
        if 0 < len(values) < count:  # the last value stands for all that were left out
            values = np.concatenate([values, np.repeat(values[-1:], count - len(values))])
    if len(values) != count:
        raise ValueError(f"holds {len(values)} values for the shape {shape}.")
    return values.reshape(shape)


def _with_batch(
    request: Message, name: str, batch: Sequence[bytes] | Sequence[np.ndarray]
) -> Message | large_request.EncodedPredictRequest:
    """A PredictRequest with the batch as its input `name`."""
    if isinstance(batch[0], bytes):
        tensor = messages.TensorProto(dtype=messages.DT_STRING, string_val=batch)
        tensor.tensor_shape.dim.add(size=len(batch))
        request.inputs[name].CopyFrom(tensor)
        return request
    tensor = messages.TensorProto(dtype=messages.DT_FLOAT)
    for size in (len(batch), *batch[0].shape):
        tensor.tensor_shape.dim.add(size=size)
    content = [np.ascontiguousarray(image, "<f4").data for image in batch]
    return large_request.with_input(request, name, tensor, content)


def _predictions(outputs: dict[str, np.ndarray], model_version: int) -> list[Prediction]:
    count = len(outputs[contract.PROBABILITIES.name])
    status = outputs.get(contract.STATUS.name, [contract.STATUS_OK.encode()] * count)
    return [
        Prediction(
            status=status[row].decode(),
            classes=tuple(name.decode() for name in outputs[contract.CLASSES.name][row]),
            class_ids=tuple(outputs[contract.CLASS_IDS.name][row].tolist()),
            scores=tuple(outputs[contract.SCORES.name][row].tolist()),
            probabilities=outputs[contract.PROBABILITIES.name][row],
            model_version=model_version,
        )
        for row in range(count)
    ]
