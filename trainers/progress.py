"""How far a long job has come, on stderr: a bar on a terminal, and a line now and then in a log."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

from sqz_keras.extras import KERAS, needs

if TYPE_CHECKING:
    from tqdm import tqdm

_SECONDS_BETWEEN = {True: 0.2, False: 10.0}  # by whether the stream is a terminal


def progress_bar(total: int, unit: str, initial: int = 0) -> tqdm:
    """A tqdm bar; its `update`, `set_postfix_str` and `write` are tqdm's.

    Args:
        total: Number of units of work.
        unit: Name of a unit.
        initial: Units that an earlier part of the job did.
    """
    with needs(*KERAS):
        from tqdm import tqdm
    terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        unit=f" {unit}s",
        initial=initial,
        file=sys.stderr if terminal else _Lines(sys.stderr),
        mininterval=_SECONDS_BETWEEN[terminal],
        dynamic_ncols=terminal,
        ascii=True,
    )


def say(text: str) -> None:
    """Writes a line to stderr about what a command is doing, above the progress bar if there is one."""
    module = sys.modules.get("tqdm")  # whoever made a bar has imported it
    if module is None:
        print(text, file=sys.stderr)
    else:
        module.tqdm.write(text, file=sys.stderr)


class _Lines:
    """A stream for logs, in which each state of the bar is a line of its own instead of being written over."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> None:
        line = text.strip("\r\n ")
        if line:
            self._stream.write(f"{line}\n")

    def flush(self) -> None:
        self._stream.flush()
