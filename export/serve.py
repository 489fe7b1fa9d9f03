"""Serves the newest version of an exported model over gRPC, on this machine.

sqz-serve --base_path=DIR [--port=8500] [--port_file=FILE] [--ssl_key=FILE --ssl_cert=FILE] [--embedded]

If tensorflow_model_server is on the PATH, it starts that; it listens on every address. Otherwise, or with --embedded,
it starts a small server of the same protocol, on 127.0.0.1 unless --host says otherwise. Both load new versions and
drop old ones as their folders come and go. SIGTERM or Ctrl-C ends it after the calls that are running.

--web adds a page for browsers: drop an image, see what it shows.
"""

from __future__ import annotations

import signal
import threading

from absl import flags

from export import contract
from sqz_keras import command


def define_flags() -> None:
    flags.DEFINE_string(
        "base_path", None, "Folder of the served model, which holds a folder for each version.", required=True
    )
    flags.DEFINE_bool("embedded", False, "Use the small server even where tensorflow_model_server is on the PATH.")
    flags.DEFINE_string(
        "host", None, "Address of the embedded server and of the page, which have no password; by default 127.0.0.1."
    )
    flags.DEFINE_integer("port", 8500, "Port to listen on; 0 takes a free one.", lower_bound=0, upper_bound=65535)
    flags.DEFINE_string("port_file", None, "File to which the port's number is written once the server answers.")
    flags.DEFINE_string("model_name", contract.MODEL_NAME, "Name by which clients ask for the model.")
    flags.DEFINE_string("ssl_key", None, "PEM file of the private key; with --ssl_cert clients must speak TLS.")
    flags.DEFINE_string("ssl_cert", None, "PEM file of the server's certificate and its chain.")
    flags.DEFINE_bool("web", False, "Serve a page for browsers too, which shows what is in an image; without TLS.")
    flags.DEFINE_integer("web_port", 8080, "The page's port; 0 takes a free one.", lower_bound=0, upper_bound=65535)


def main(argv) -> int:
    del argv
    # Before the slow imports, so that a signal in the meantime ends the server in order too.
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, lambda *_: stopped.set())
    from export.server.run import ServeConfig, run_server

    names = ServeConfig.__dataclass_fields__
    run_server(ServeConfig(**{name: flags.FLAGS[name].value for name in names}), stopped)
    return 0


def run() -> None:
    command.run(main, define_flags, __doc__, extras=("serve",))


if __name__ == "__main__":
    run()
