"""How far a long job is: one line rewritten in place on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_BAR = 20  # characters
_SECONDS_BETWEEN = {True: 0.2, False: 10.0}  # by whether the stream is a terminal


class Progress:
    """A progress line on stderr, with images a second and the time left.

    Args:
        total: units of work.
        unit: what they are called.
        images_per_unit: 1 where the units are images.
        first: units that an earlier part of the job did.
        stream: instead of stderr.
    """

    def __init__(self, total: int, unit: str, images_per_unit: int = 1, first: int = 0, stream: TextIO | None = None):
        self._total, self._unit, self._images = total, unit, images_per_unit
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._start = self._shown = time.monotonic()
        self._first = first
        self._width = 0

    def show(self, done: int, text: str = "", now: bool = False) -> None:
        """Shows that `done` units are done, and `text`; too soon after the last time it does nothing, unless `now`."""
        if not now and time.monotonic() - self._shown < _SECONDS_BETWEEN[self._terminal] and done < self._total:
            return
        self._shown = time.monotonic()
        elapsed = self._shown - self._start
        done_here = done - self._first
        left = round(elapsed / done_here * (self._total - done))
        parts = [f"{self._unit} {done}/{self._total}", text, f"{done_here * self._images / elapsed:.0f} images/s"]
        parts.append(f"{left // 60}:{left % 60:02d} left" if done < self._total else f"took {elapsed:.1f} s")
        line = "  ".join(part for part in parts if part)
        if self._terminal:
            filled = _BAR * done // self._total
            line = f"\r[{'#' * filled}{'.' * (_BAR - filled)}] {line}"
            self._stream.write(line.ljust(self._width) + ("\n" if done == self._total else ""))
            self._width = len(line)
        else:
            self._stream.write(f"{line}\n")
        self._stream.flush()

    def message(self, text: str) -> None:
        """A line of its own, which does not run into the progress line."""
        self._stream.write(f"{chr(13) if self._terminal else ''}{text.ljust(self._width)}\n")
        self._width = 0


def say(text: str) -> None:
    """A line on stderr about what a command does now."""
    print(text, file=sys.stderr, flush=True)
