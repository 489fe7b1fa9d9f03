"""Runs sqz-predict from its config: sends the images, and prints the answers, or writes a folder's to a file."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import ssl
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from export import contract
from export.client.pem import read_pem
from sqz_keras.command import flag_field

if TYPE_CHECKING:
    import numpy as np

    from export.client.client import Client

_SECONDS_OF_SILENCE = 3.0


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """Which images to send, and to which server. A field's help is also the help of its flag.

    Raises:
        ValueError: Both `image` and `image_dir` are given, `image_dir` or `output` without the other, or
            `ssl_server_name` without `ssl_ca`.
    """

    image: Sequence[str] = ()
    image_dir: str | None = flag_field(None, "Folder of images, at any depth, instead of single ones.")
    output: str | None = flag_field(None, "File for the answers to --image_dir: one line of JSON per image.")
    server: str = flag_field("127.0.0.1:8500", "HOST:PORT of sqz-serve or of TensorFlow Serving.")
    top: int = flag_field(contract.TOP_K, "How many classes to name.", lower_bound=1, upper_bound=contract.TOP_K)
    model_name: str = flag_field(contract.MODEL_NAME, "The model's name on the server.")
    model_version: int | None = None
    timeout_seconds: float = flag_field(30.0, "Time limit of each call.", lower_bound=0.001)
    ssl_ca: str | None = flag_field(None, "PEM file of the certificates to trust; turns TLS on.")
    ssl_server_name: str | None = flag_field(None, "Name in the server's certificate, if it is not the server's host.")

    def __post_init__(self):
        if bool(self.image_dir) != bool(self.output):
            raise ValueError("--image_dir and --output belong together: the folder, and the file for its answers.")
        if self.image_dir and self.image:
            raise ValueError("Give images, or --image_dir; not both.")
        if self.ssl_server_name and not self.ssl_ca:
            raise ValueError("--ssl_server_name is for TLS: give --ssl_ca too, the certificates to trust.")


def run_predict(config: PredictConfig) -> int:
    """Prints the classes of each image on stdout, and the images that cannot be read on stderr.

    For a folder, the answers and the images that cannot be read go to `config.output`.

    Returns:
        The exit status: 0; or 1 if an image that was given by its path could not be read.

    Raises:
        ServingError: The server did not answer.
        ValueError, OSError: As in `predict_folder`.
    """
    if config.image_dir:
        from export.client.folder import predict_folder

        with _client(config) as client:
            print(predict_folder(client, config.image_dir, config.output, config.top))
        return 0
    paths, images = _read(config.image)
    if not images:
        return 1
    readable = 0
    with _client(config) as client, _says_that_it_waits(config):
        predictions = client.predict(images)
    for path, prediction in zip(paths, predictions, strict=True):
        if prediction.status != contract.STATUS_OK:
            print(f"sqz-predict: {path}: {prediction.status}", file=sys.stderr)
            continue
        readable += 1
        print(path)
        for name, score in list(zip(prediction.classes, prediction.scores, strict=True))[: config.top]:
            print(f"  {score:7.2%}  {name}")
    return 0 if readable == len(config.image) else 1


@contextlib.contextmanager
def _says_that_it_waits(config: PredictConfig) -> Iterator[None]:
    """Prints a line if the block takes long: a server that cannot be reached is tried again until the deadline."""
    line = (
        f"sqz-predict: no answer from {config.server} yet; trying for {config.timeout_seconds:g} s in all "
        "(--timeout_seconds)"
    )
    timer = threading.Timer(_SECONDS_OF_SILENCE, print, (line,), {"file": sys.stderr, "flush": True})
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _read(paths: Sequence[str]) -> tuple[list[str], list[bytes | np.ndarray]]:
    """The paths that can be opened, and for each of them the image as it is sent."""
    from export.client.images import as_list, check_fits

    opened, images = [], []
    for path in paths:
        try:
            if os.path.isdir(path):
                raise ValueError("a folder, not an image; give --image_dir and --output")
            (image,) = as_list(path)
            check_fits(image)
        except (OSError, ValueError) as error:
            print(f"sqz-predict: {path}: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
        else:
            opened.append(path)
            images.append(image)
    return opened, images


def _read_certificates(path: str) -> bytes:
    certificates = b"".join(read_pem(path, certificates=True))
    try:
        if not certificates:
            raise ValueError("it has none")
        ssl.create_default_context(cadata=certificates.decode("ascii"))
    except (ValueError, ssl.SSLError) as error:
        raise ValueError(f"--ssl_ca={path} must hold certificates as PEM: {error}.") from error
    return certificates


def _client(config: PredictConfig) -> Client:
    import grpc

    from export.client.client import Client

    trusted = _read_certificates(config.ssl_ca) if config.ssl_ca else None
    return Client(
        config.server,
        model_name=config.model_name,
        model_version=config.model_version,
        timeout_seconds=config.timeout_seconds,
        credentials=grpc.ssl_channel_credentials(trusted) if trusted else None,
        server_name=config.ssl_server_name,
    )
