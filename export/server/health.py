"""gRPC's health check (grpc.health.v1), for the server as a whole: the call Check, which probes make."""

from __future__ import annotations

from collections.abc import Callable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


class Health(health_pb2_grpc.HealthServicer):
    """Answers SERVING where `is_serving()`, and NOT_SERVING elsewhere; Watch is UNIMPLEMENTED."""

    def __init__(self, is_serving: Callable[[], bool]):
        self._is_serving = is_serving

    def Check(self, request, context):  # noqa: N802 - the protocol's name
        if request.service:
            context.abort(grpc.StatusCode.NOT_FOUND, "Only the server as a whole, the empty service, has a health.")
        response = health_pb2.HealthCheckResponse
        return response(status=response.SERVING if self._is_serving() else response.NOT_SERVING)
