"""Serves the newest version of an exported model over gRPC, on this machine.

sqz-serve --base_path=DIR [--port=8500] [--port_file=FILE] [--ssl_key=FILE --ssl_cert=FILE] [--embedded]

If tensorflow_model_server is on the PATH, sqz-serve starts it; that server listens on every address. Otherwise, or with
--embedded, sqz-serve starts a small server of the same protocol, on 127.0.0.1 unless --host says otherwise. Both load
new versions and unload old ones as their folders come and go. After SIGTERM or Ctrl-C the server finishes the calls
that are running, and ends.

--web adds a page for browsers, which classifies the images that are dropped on it.
"""

from __future__ import annotations

import signal
import threading

from absl import flags

from export.server.run import ServeConfig, run_server
from sqz_keras import command


def define_flags() -> None:
    command.define_field_flags(ServeConfig)


def main(argv) -> int:
    del argv
    # Set before TensorFlow is imported, so that a signal during the import also ends the server cleanly.
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, lambda *_: stopped.set())
    run_server(command.config_of(ServeConfig, flags.FLAGS), stopped)
    return 0


def run() -> None:
    command.run(main, define_flags, __doc__, extras=("serve",))


if __name__ == "__main__":
    run()
