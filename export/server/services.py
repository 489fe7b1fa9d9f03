"""The calls that the server answers, as gRPC servicers."""

from __future__ import annotations

import grpc
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from export.server import large_request
from export.server.errors import RequestError, errors_as_status, invalid
from export.server.manager import VersionManager

_NO_DEADLINE_SECONDS = 1e9  # gRPC gives 9e18 for a call without a deadline, which no int64 holds in milliseconds


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict, Classify and GetModelMetadata."""

    def __init__(self, versions: VersionManager):
        self._versions = versions

    def Predict(self, request, context):  # noqa: N802 - the protocol's name
        with errors_as_status(context), self._versions.lease(request.message.model_spec) as model:
            return model.predict(request, _timeout_ms(context))

    def large_predict_handler(self) -> grpc.GenericRpcHandler:
        """A handler for Predict that reads its requests with `large_request`. Add it before the other handlers."""
        predict = grpc.unary_unary_rpc_method_handler(
            self.Predict,
            request_deserializer=large_request.parse,
            response_serializer=predict_pb2.PredictResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", {"Predict": predict})

    def Classify(self, request, context):  # noqa: N802
        with errors_as_status(context), self._versions.lease(request.model_spec) as model:
            return model.classify(request, _timeout_ms(context))

    def GetModelMetadata(self, request, context):  # noqa: N802
        with errors_as_status(context):
            if not request.metadata_field or set(request.metadata_field) != {"signature_def"}:
                raise invalid(f"metadata_field must be ['signature_def'], got {list(request.metadata_field)!s:.200}.")
            with self._versions.lease(request.model_spec) as model:
                return model.metadata()

    def _unimplemented(self, request, context):
        context.abort(
            grpc.StatusCode.UNIMPLEMENTED, "This server answers Predict, Classify, GetModelMetadata and GetModelStatus."
        )

    Regress = MultiInference = _unimplemented


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus."""

    def __init__(self, versions: VersionManager):
        self._versions = versions

    def GetModelStatus(self, request, context):  # noqa: N802
        with errors_as_status(context):
            if not request.HasField("model_spec"):
                raise invalid("The request has no model_spec.")
            statuses = self._versions.statuses(request.model_spec)
            return get_model_status_pb2.GetModelStatusResponse(model_version_status=statuses)

    def HandleReloadConfigRequest(self, request, context):  # noqa: N802
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "This server's model is named by its command line.")


def _timeout_ms(context: grpc.ServicerContext) -> int:
    """The time that a call has left, at least 1 ms; 0 if it has no deadline.

    Raises:
        RequestError: DEADLINE_EXCEEDED: no time is left, or the client is gone; the call must not run.
    """
    left = context.time_remaining()
    if not context.is_active() or (left is not None and left <= 0):
        raise RequestError(grpc.StatusCode.DEADLINE_EXCEEDED, "The deadline passed while the call waited.")
    return 0 if left is None or left > _NO_DEADLINE_SECONDS else max(1, int(left * 1000))
