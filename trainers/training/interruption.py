"""How a run ends early: a signal that lets the update finish, or another worker that is gone."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

import tensorflow as tf


class Interrupted(Exception):  # noqa: N818 - not an error: the run can be resumed
    """A signal ended the run, after a checkpoint was written where it had made updates.

    Args:
        number: The signal, kept as the attribute `signal`.
        step: The last finished step.
    """

    def __init__(self, number: signal.Signals, step: int):
        super().__init__(f"{number.name} at step {step}; the same command resumes from there.")
        self.signal = number


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
