"""Serves the newest version of an exported model over gRPC, as TensorFlow Serving does, on this machine.

sqz-serve --base_path=DIR [--port=8500] [--port_file=FILE]

SIGTERM or Ctrl-C ends it: calls that run are finished first.
"""

from __future__ import annotations

import pathlib
import signal
import threading

from absl import flags

from export import contract
from sqz_keras import command


def define_flags() -> None:
    flags.DEFINE_string("base_path", None, "Folder of the served model, which holds a folder a version.", required=True)
    flags.DEFINE_string("host", "127.0.0.1", "Address to listen on. There is no encryption and no password.")
    flags.DEFINE_integer("port", 8500, "Port to listen on; 0 takes a free one.", lower_bound=0, upper_bound=65535)
    flags.DEFINE_string("port_file", None, "File that gets the port's number once the server answers.")
    flags.DEFINE_string("model_name", contract.MODEL_NAME, "Name by which clients ask for the model.")


def main(argv) -> int:
    del argv
    # Before the imports and the loading, so that a signal in the meantime ends the server in order too.
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())

    from export.server import ServerConfig, load_newest, serve, write_port_file

    args = flags.FLAGS
    port_file = pathlib.Path(args.port_file) if args.port_file else None
    if port_file:
        port_file.unlink(missing_ok=True)  # an earlier server's, which no client should take for this one's
    model = load_newest(args.base_path, args.model_name)
    with serve(model, ServerConfig(host=args.host, port=args.port)) as port:
        if port_file:
            write_port_file(port_file, port)
        print(f"Serving {model.name} version {model.version} on {args.host}:{port}", flush=True)
        stopped.wait()
        if port_file:
            port_file.unlink(missing_ok=True)
    return 0


def run() -> None:
    command.run(main, define_flags, __doc__)


if __name__ == "__main__":
    run()
