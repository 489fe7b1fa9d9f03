"""Keeps what the C++ code of TensorFlow and gRPC logs, and what Pillow warns of, out of a command's output."""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.util
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence

LEVEL = "TF_CPP_MIN_LOG_LEVEL"  # environment variable: 0 shows everything, 3 only fatal errors
_SILENT = "3"
_GRPC_LEVEL = "GRPC_VERBOSITY"
# Passes on every line except those that TensorFlow logs below FATAL.
_FILTER = r"""
import re, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
log = re.compile(
    rb"[IWE]\d{4} [\d:.]+ +\d+ [\w./-]+:\d+\] "
    rb"|WARNING: All log messages before absl::InitializeLog"
    rb"|INFO: |fully_quantize: "  # of LiteRT
)
for line in sys.stdin.buffer:
    if not log.match(line):
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
"""


def silence() -> None:
    """Hides the logs, unless the user's environment asks for them or TensorFlow is already imported.

    Hides Pillow's warnings too, such as that of damaged EXIF: they do not name the file.

    Errors stay: they are Python's exceptions, gRPC's own, and TensorFlow's FATAL lines, with which it ends the process.

    TensorFlow ignores the level in the environment while its libraries are loaded. For as long as `import tensorflow`
    takes, a separate process filters what it prints; the last lines of a library that ends this process still appear.
    """
    os.environ.setdefault(_GRPC_LEVEL, "ERROR")
    if os.environ.setdefault(LEVEL, _SILENT) == _SILENT:
        warnings.filterwarnings("ignore", module=r"PIL\.")
        if "tensorflow" not in sys.modules:
            sys.meta_path.insert(0, _FilteredImport())


def show() -> None:
    """Shows the logs, unless the user's environment says otherwise."""
    os.environ.setdefault(_GRPC_LEVEL, "INFO")
    os.environ.setdefault(LEVEL, "0")


class _FilteredImport(importlib.abc.MetaPathFinder):
    """Finds TensorFlow as the other finders do, and filters stderr while it is loaded."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target=None):
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_filtered(module):
                with filtered_stderr():
                    load(module)

            spec.loader.exec_module = load_filtered
        return spec


@contextlib.contextmanager
def filtered_stderr() -> Iterator[None]:
    """Filters TensorFlow's log out of what the block writes to stderr, if the logs are hidden."""
    if os.environ.get(LEVEL) != _SILENT:
        yield
        return
    try:
        stderr = os.dup(2)
        command = [sys.executable, "-I", "-S", "-c", _FILTER]
        passing = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=stderr)
    except OSError:  # no stderr, or no more processes: then nothing is filtered
        yield
        return
    try:
        os.dup2(passing.stdin.fileno(), 2)
        passing.stdin.close()
        yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)
        with contextlib.suppress(subprocess.TimeoutExpired):  # a process that the block started may hold the pipe
            passing.wait(5)  # without the wait, its lines might come after this process's next ones
