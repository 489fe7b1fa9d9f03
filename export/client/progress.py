"""A folder's progress on stderr: one line, rewritten in place, on a terminal; a line now and then in a log."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_SECONDS_BETWEEN = {True: 0.2, False: 10.0}  # by whether the stream is a terminal
_BAR_CHARACTERS = 30


class Progress:
    """Counts images; use it in a `with` statement.

    It does not use the other commands' progress bar, as a client is installed without tqdm.

    Args:
        total: Number of images.
        done: Number of images that an earlier run finished.
        stream: Where to write; None means stderr.
    """

    def __init__(self, total: int, done: int = 0, stream: TextIO | None = None):
        self._total, self._done, self._first = total, done, done
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._start = self._shown = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_) -> None:
        self._show(time.monotonic(), "\n")

    def update(self) -> None:
        """Counts one more image."""
        self._done += 1
        now = time.monotonic()
        if now - self._shown >= _SECONDS_BETWEEN[self._is_terminal]:
            self._show(now, "" if self._is_terminal else "\n")

    def text(self, now: float) -> str:
        """The line: a bar, the images so far and the time left."""
        filled = _BAR_CHARACTERS * self._done // max(self._total, 1)
        bar = "#" * filled + "." * (_BAR_CHARACTERS - filled)
        counted = f"[{bar}] {self._done:,} of {self._total:,} images"
        rate = (self._done - self._first) / max(now - self._start, 1e-9)
        if not rate:
            return counted
        left = round((self._total - self._done) / rate)
        return f"{counted}, {rate:.1f} a second, {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"

    def _show(self, now: float, end: str) -> None:
        self._shown = now
        # "\x1b[K" removes what is left of a longer line.
        start = "\r\x1b[K" if self._is_terminal else ""
        print(f"{start}{self.text(now)}", end=end, file=self._stream, flush=True)
