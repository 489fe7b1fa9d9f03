"""A local gRPC server that speaks TensorFlow Serving's protocol: for laptops, demos and tests.

It answers Predict, GetModelMetadata and GetModelStatus for one version of one model, with the status codes that
TensorFlow's model server gives; the protocol's other calls are UNIMPLEMENTED.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures

import grpc
import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from export import contract, versions

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_AVAILABLE = get_model_status_pb2.ModelVersionStatus.AVAILABLE


class RequestError(Exception):
    """A request that cannot be answered, with the status code that its sender gets."""

    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code = code


@dataclasses.dataclass(frozen=True)
class ServedVersion:
    """A loaded version: its number, how its file describes its signatures, and the functions that run them.

    `root` is the loaded object: its variables live as long as it does.
    """

    name: str
    version: int
    signature_defs: Mapping[str, meta_graph_pb2.SignatureDef]
    functions: Mapping[str, Callable]
    root: object


def load_newest(base_path: str | os.PathLike, name: str = contract.MODEL_NAME) -> ServedVersion:
    """Loads the highest version under `base_path`. A SavedModel is a program: load only what you trust.

    Raises:
        ValueError: there is no version, or the newest is no SavedModel.
    """
    found = versions.list_versions(base_path)
    if not found:
        raise ValueError(
            f"{os.fspath(base_path)}: expected a folder whose subfolders are versions (1, 2, ...), found none. Write "
            "one with sqz-export --base_path=..."
        )
    version, path = max(found.items())
    try:
        saved_model = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
        root = tf.saved_model.load(os.fspath(path))
    except Exception as error:  # TensorFlow raises many kinds for a damaged folder
        raise ValueError(
            f"{path} is no SavedModel that can be loaded ({type(error).__name__}: {error!s:.200}). Export the model "
            "again as a new version, or remove that folder."
        ) from error
    return ServedVersion(name, version, dict(saved_model.meta_graphs[0].signature_def), root.signatures, root)


@dataclasses.dataclass(frozen=True)
class ServerConfig:
    """How the server listens.

    Args:
        host: address to listen on.
        port: 0 takes a free one.
        max_workers: calls that run at once.
        max_queue: calls that may wait beside those; more get RESOURCE_EXHAUSTED.
        max_message_bytes: of a request or response.
    """

    host: str = "127.0.0.1"
    port: int = 8500
    max_workers: int = 4
    max_queue: int = 64
    max_message_bytes: int = contract.MAX_MESSAGE_BYTES


@contextlib.contextmanager
def serve(model: ServedVersion, config: ServerConfig, grace_seconds: float = 10.0) -> Iterator[int]:
    """Serves in the background for as long as the block runs, and gives the port.

    At its end new calls are refused, and those that run get `grace_seconds` to finish.

    Raises:
        OSError: the address cannot be listened on.
    """
    server = grpc.server(
        futures.ThreadPoolExecutor(config.max_workers),
        maximum_concurrent_rpcs=config.max_workers + config.max_queue,
        options=[
            ("grpc.max_receive_message_length", config.max_message_bytes),
            ("grpc.max_send_message_length", config.max_message_bytes),
            ("grpc.so_reuseport", 0),  # two servers on one port would each get some of the calls
        ],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_PredictionService(model), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_ModelService(model), server)
    try:
        port = server.add_insecure_port(f"{config.host}:{config.port}")
    except RuntimeError as error:
        raise OSError(
            f"Cannot listen on {config.host}:{config.port}: is it taken? --port=0 takes a free port."
        ) from error
    server.start()
    try:
        yield port
    finally:
        server.stop(grace_seconds).wait()


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, model: ServedVersion):
        self._model = model

    def Predict(self, request, context):  # noqa: N802 - the protocol's name
        with _errors_as_status(context):
            model = _find(self._model, request.model_spec)
            name = request.model_spec.signature_name or contract.SERVING_DEFAULT.name
            if name not in model.functions:
                raise RequestError(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    f"Serving signature key {name!r} not found; the model has {sorted(model.functions)}.",
                )
            signature = model.signature_defs[name]
            outputs = _wanted_outputs(signature, request.output_filter)
            inputs = _read_inputs(signature, request.inputs)
            if not context.is_active():
                raise RequestError(grpc.StatusCode.DEADLINE_EXCEEDED, "The deadline passed while the call waited.")
            values = model.functions[name](**inputs)
            response = predict_pb2.PredictResponse(model_spec=_model_spec(model, name))
            for output in outputs:
                response.outputs[output].CopyFrom(tf.make_tensor_proto(values[output].numpy()))
            return response

    def GetModelMetadata(self, request, context):  # noqa: N802
        with _errors_as_status(context):
            model = _find(self._model, request.model_spec)
            if list(request.metadata_field) != ["signature_def"]:
                raise RequestError(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"metadata_field must be ['signature_def'], got {list(request.metadata_field)}.",
                )
            signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=model.signature_defs)
            response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=_model_spec(model))
            response.metadata["signature_def"].Pack(signatures)
            return response

    def _unimplemented(self, request, context):
        context.abort(
            grpc.StatusCode.UNIMPLEMENTED, "This server answers Predict, GetModelMetadata and GetModelStatus."
        )

    Classify = Regress = MultiInference = _unimplemented


class _ModelService(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, model: ServedVersion):
        self._model = model

    def GetModelStatus(self, request, context):  # noqa: N802
        with _errors_as_status(context):
            model = _find(self._model, request.model_spec)
            response = get_model_status_pb2.GetModelStatusResponse()
            response.model_version_status.add(version=model.version, state=_AVAILABLE)
            return response

    def HandleReloadConfigRequest(self, request, context):  # noqa: N802
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "This server's model is named by its command line.")


@contextlib.contextmanager
def _errors_as_status(context: grpc.ServicerContext) -> Iterator[None]:
    """Ends the call with the status code that an exception stands for."""
    try:
        yield
        return
    except RequestError as error:
        code, message = error.code, str(error)
    except tf.errors.OpError as error:
        code, message = _CODES.get(error.error_code, grpc.StatusCode.INTERNAL), error.message
    except Exception:
        logging.exception("A call failed by a defect of the server.")
        code, message = grpc.StatusCode.INTERNAL, "The server failed; its log says more."
    context.abort(code, message[:1000])


def _model_spec(model: ServedVersion, signature_name: str = "") -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=model.name, signature_name=signature_name)
    spec.version.value = model.version
    return spec


def _find(model: ServedVersion, asked: model_pb2.ModelSpec) -> ServedVersion:
    """The model, if it is the one asked for."""
    if not asked.name:
        raise RequestError(grpc.StatusCode.INVALID_ARGUMENT, "The request's model_spec has no name.")
    if asked.name != model.name:
        raise RequestError(
            grpc.StatusCode.NOT_FOUND, f"Model {asked.name!r:.100} not found; this server has {model.name!r}."
        )
    if asked.WhichOneof("version_choice") == "version_label":
        raise RequestError(
            grpc.StatusCode.INVALID_ARGUMENT, f"Unrecognized servable version label: {asked.version_label:.100}."
        )
    if asked.HasField("version") and asked.version.value != model.version:
        raise RequestError(
            grpc.StatusCode.NOT_FOUND,
            f"Version {asked.version.value} of {model.name!r} not found; this server has version {model.version}.",
        )
    return model


def _wanted_outputs(signature: meta_graph_pb2.SignatureDef, output_filter) -> list[str]:
    unknown = sorted(set(output_filter) - set(signature.outputs))
    if unknown:
        raise RequestError(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"Unknown outputs {unknown}; the signature has {sorted(signature.outputs)}.",
        )
    return list(output_filter) or list(signature.outputs)


def _read_inputs(signature: meta_graph_pb2.SignatureDef, sent: Mapping) -> dict[str, tf.Tensor]:
    """The request's tensors, held against the signature before anything of the declared size is allocated."""
    if set(sent) != set(signature.inputs):
        raise RequestError(
            grpc.StatusCode.INVALID_ARGUMENT, f"Expected the inputs {sorted(signature.inputs)}, got {sorted(sent)}."
        )
    return {name: _read_tensor(name, signature.inputs[name], proto) for name, proto in sent.items()}


def _read_tensor(name: str, info: meta_graph_pb2.TensorInfo, proto) -> tf.Tensor:
    def refuse(expected: object, got: object):
        raise RequestError(grpc.StatusCode.INVALID_ARGUMENT, f"Input {name!r}: expected {expected}, got {got!s:.200}.")

    if proto.dtype != info.dtype:
        known = proto.dtype in types_pb2.DataType.values()
        got = types_pb2.DataType.Name(proto.dtype) if known else proto.dtype
        refuse(types_pb2.DataType.Name(info.dtype), got)
    shape = [dim.size for dim in proto.tensor_shape.dim]
    expected = [dim.size for dim in info.tensor_shape.dim]
    fits = len(shape) == len(expected) and all(want in (-1, size) for want, size in zip(expected, shape, strict=True))
    if proto.tensor_shape.unknown_rank or not fits:
        refuse(f"shape {expected} (-1: any size)", shape)
    if not all(size >= 1 for size in shape):
        refuse("at least 1 in every dimension", shape)
    if shape[0] > contract.MAX_BATCH_SIZE:
        refuse(f"at most {contract.MAX_BATCH_SIZE} pictures in a call", shape[0])
    count = math.prod(shape)
    if proto.dtype == types_pb2.DT_STRING:
        if len(proto.string_val) != count:
            refuse(f"{count} values, as its shape says", len(proto.string_val))
        return tf.constant(list(proto.string_val), tf.string, shape)
    if proto.tensor_content:
        if len(proto.tensor_content) != 4 * count:
            refuse(f"{4 * count} bytes, as its shape says", len(proto.tensor_content))
        return tf.constant(np.frombuffer(proto.tensor_content, "<f4").reshape(shape))
    if len(proto.float_val) != count:
        refuse(f"{count} values, as its shape says", len(proto.float_val))
    return tf.constant(np.fromiter(proto.float_val, np.float32, count).reshape(shape))


def write_port_file(path: str | os.PathLike, port: int) -> None:
    """Writes the port's number, whole or not at all."""
    path = pathlib.Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(f"{port}\n")
    os.replace(temporary, path)
