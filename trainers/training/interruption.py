"""How a run ends early: a signal that lets the update finish, a worker that is gone, or what TensorFlow cannot read."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Callable, Iterator

import tensorflow as tf

_MENDABLE = (
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.ResourceExhaustedError,  # a full disk too
    tf.errors.DataLossError,
)
# The part of TensorFlow's messages that says where in a graph or a tf.data pipeline an error comes from.
_PLACE = r"\{\{.*?\}\}\s*|Error in user-defined function .*?Iterator::\S+: "


class Interrupted(Exception):  # noqa: N818 - not an error: the run can be resumed
    """A signal ended the run; if the run had made updates, a checkpoint was written first.

    Args:
        number: The signal.
        step: The last finished step.

    Attributes:
        exit_status: The command's: 0 after SIGTERM, 130 after Ctrl-C.
    """

    def __init__(self, number: signal.Signals, step: int):
        super().__init__(f"{number.name} at step {step}; the same command resumes from there.")
        self.exit_status = 0 if number == signal.SIGTERM else 130


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], signal.Signals | None]]:
    """Yields a function that returns the SIGTERM or SIGINT received so far, or None; a second signal acts at once."""
    received: list[signal.Signals] = []
    handlers = {}

    def restore():
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def receive(number, _):
        received.append(signal.Signals(number))
        restore()

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            handlers[number] = signal.signal(number, receive)
    except ValueError:  # outside the main thread, signals are the caller's business
        handlers.clear()
    try:
        yield lambda: received[0] if received else None
    finally:
        restore()


@contextlib.contextmanager
def lost_workers() -> Iterator[None]:
    """Turns TensorFlow's errors about a worker that is gone into one line.

    Raises:
        ConnectionError: Another worker has ended.
    """
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
        raise ConnectionError(
            f"Another worker of this run has ended ({error.message:.200}). Start all workers again with the same "
            "command: they resume from the newest checkpoint."
        ) from error


@contextlib.contextmanager
def mendable_errors() -> Iterator[None]:
    """Turns TensorFlow's errors about files, disks and memory into one line.

    Raises:
        OSError: A file cannot be read or written, or memory is exhausted.
    """
    try:
        yield
    except _MENDABLE as error:
        line = re.sub(_PLACE, "", f"{error.message}\n".splitlines()[0])
        remedy = "Restore the file, or remove the folder of checkpoints if it is one of those"
        if isinstance(error, tf.errors.ResourceExhaustedError):
            remedy = "Free some disk or memory; smaller batches need less, and another workdir"
        raise OSError(f"{line.rstrip('.'):.300}. {remedy}. Then give the command again.") from error
