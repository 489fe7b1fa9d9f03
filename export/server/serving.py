"""The server: how it listens, starts and ends."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections.abc import Callable, Iterator
from concurrent import futures

import grpc
from absl import logging
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from export import contract
from export.server.manager import VersionManager, load_version
from export.server.services import ModelService, PredictionService
from sqz_keras import quiet

_GRACE_SECONDS = 10.0  # for the calls that are still running at the end


@dataclasses.dataclass(frozen=True)
class ServerConfig:
    """How the server listens.

    Args:
        host: Address to listen on.
        port: 0 takes a free one.
        model_name: The name by which clients ask for the model.
        max_workers: How many calls run at once.
        max_queue: How many more calls may wait, unread; calls beyond these get RESOURCE_EXHAUSTED.
        poll_seconds: Time between two checks for new and removed versions.
        key_and_cert: Private key and certificate chain, PEM. With these, the server accepts TLS only.
    """

    host: str = "127.0.0.1"
    port: int = 8500
    model_name: str = contract.MODEL_NAME
    max_workers: int = 4
    max_queue: int = 64
    poll_seconds: float = 1.0
    key_and_cert: tuple[bytes, bytes] | None = dataclasses.field(default=None, repr=False)


@contextlib.contextmanager
def serve(base_path: str | os.PathLike, config: ServerConfig, load: Callable = load_version) -> Iterator[int]:
    """Serves the versions under `base_path` in the background while the block runs, and gives the port.

    At the end of the block, new calls are refused, and calls that run or wait get ten seconds to finish.

    Args:
        base_path: The folder of all versions.
        config: How to listen.
        load: As in VersionManager.

    Raises:
        ValueError: There is no version, or the newest cannot be loaded.
        OSError: The address cannot be listened on.
    """
    versions = VersionManager(base_path, config.model_name, load)
    versions.load_newest()
    ended = threading.Event()
    servicer = health.HealthServicer()  # SERVING from the start, as a version is loaded
    server, port = _listen(versions, servicer, config)
    arguments = (versions, servicer, config.poll_seconds, ended)
    poller = threading.Thread(target=_poll, args=arguments, name="versions", daemon=True)
    server.start()
    poller.start()
    try:
        yield port
    finally:
        ended.set()
        servicer.enter_graceful_shutdown()
        server.stop(_GRACE_SECONDS).wait()
        poller.join()
        versions.close()


def _listen(versions: VersionManager, servicer: health.HealthServicer, config: ServerConfig) -> tuple[grpc.Server, int]:
    server = grpc.server(
        futures.ThreadPoolExecutor(config.max_workers),
        maximum_concurrent_rpcs=config.max_workers + config.max_queue,
        options=[
            ("grpc.max_receive_message_length", contract.MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", contract.MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),  # two servers on one port would each get some of the calls
        ],
    )
    prediction = PredictionService(versions)
    server.add_generic_rpc_handlers([prediction.large_predict_handler()])  # before the other, whose Predict copies more
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(prediction, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(versions), server)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    address = contract.address(config.host, config.port)
    try:
        with quiet.filtered_stderr():  # gRPC logs what the error says
            if config.key_and_cert is None:
                return server, server.add_insecure_port(address)
            credentials = grpc.ssl_server_credentials([config.key_and_cert])
            return server, server.add_secure_port(address, credentials)
    except RuntimeError as error:
        versions.close()
        raise OSError(
            f"Cannot listen on {address}: is it taken? --port=0 takes a free port. Is --host this machine's?"
        ) from error


def _poll(
    versions: VersionManager, servicer: health.HealthServicer, poll_seconds: float, ended: threading.Event
) -> None:
    status = health_pb2.HealthCheckResponse
    while not ended.wait(poll_seconds):
        try:
            versions.poll()
        except Exception:  # for example, a folder that cannot be listed; the next poll may succeed
            logging.exception("The folder of versions cannot be read.")
        servicer.set("", status.SERVING if versions.any_available() else status.NOT_SERVING)
