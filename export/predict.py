"""Asks a server what images show.

sqz-predict --image=photo.jpg [--image=other.png] [--server=127.0.0.1:8500] [--top=5] [--ssl_ca=FILE]

An image that cannot be read is reported and the others are answered; the exit status is then 1.
"""

from __future__ import annotations

import pathlib
import sys

from absl import flags

from export import contract
from sqz_keras import command


def define_flags() -> None:
    flags.DEFINE_string("server", "127.0.0.1:8500", "HOST:PORT of sqz-serve or of TensorFlow Serving.")
    flags.DEFINE_multi_string("image", None, "Path of an image; repeat it for more.", required=True)
    flags.DEFINE_integer("top", contract.TOP_K, "How many classes to name.", lower_bound=1, upper_bound=contract.TOP_K)
    flags.DEFINE_string("model_name", contract.MODEL_NAME, "The model's name on the server.")
    flags.DEFINE_integer("model_version", None, "The served version to ask; the newest where it is left out.")
    flags.DEFINE_float("timeout_seconds", 30.0, "For each call.", lower_bound=0.001)
    flags.DEFINE_string("ssl_ca", None, "PEM file of the certificates to trust: the server is then asked over TLS.")
    flags.DEFINE_string("ssl_server_name", None, "Name in the server's certificate, where it is not the server's host.")


def main(argv) -> int:
    del argv
    import grpc

    from export.client import images as client_images
    from export.client.client import Client

    args = flags.FLAGS
    credentials = grpc.ssl_channel_credentials(pathlib.Path(args.ssl_ca).read_bytes()) if args.ssl_ca else None
    paths, found, failures = [], [], 0
    for path in args.image:
        try:
            found += client_images.as_list(path)
            paths.append(path)
        except OSError as error:
            failures += 1
            print(f"sqz-predict: {error}", file=sys.stderr)
    if not found:
        return 1
    with Client(
        args.server,
        model_name=args.model_name,
        model_version=args.model_version,
        timeout_seconds=args.timeout_seconds,
        credentials=credentials,
        server_name=args.ssl_server_name,
    ) as client:
        predictions = client.predict(found)
    for path, prediction in zip(paths, predictions, strict=True):
        if prediction.status != contract.STATUS_OK:
            failures += 1
            print(f"sqz-predict: {path}: {prediction.status}", file=sys.stderr)
            continue
        print(path)
        for name, score in list(zip(prediction.classes, prediction.scores, strict=True))[: args.top]:
            print(f"  {score:7.2%}  {name}")
    return 1 if failures else 0


def run() -> None:
    command.run(main, define_flags, __doc__)


if __name__ == "__main__":
    run()
