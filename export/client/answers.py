"""A file of answers, one line of JSON per image. A later run continues where an earlier one ended."""

from __future__ import annotations

import json
import os
import pathlib
import stat
from typing import BinaryIO

from export import contract
from export.client.exchange import Prediction
from sqz_keras.files import lock

_LINE_START = b'{"image": '


class AnswersFile:
    """Appends answers to a file. Use it in a `with` statement.

    A line holds `image`, `status`, and, if the status is "OK", `model_version`, `classes`, `class_ids` and `scores`.
    If the served version changes between two runs, the file still says which version gave each answer.

    Args:
        path: The file; it is created if it does not exist. If an earlier run left an incomplete last line, that line
            is dropped.
        top: How many classes a line holds.

    Raises:
        ValueError: The file is not a regular file, holds anything but answers, or is being written by another process.
        OSError: The file cannot be opened.
    """

    def __init__(self, path: str | os.PathLike, top: int):
        self._path, self._top = pathlib.Path(path), top
        self._file: BinaryIO = open(self._path, "ab+")  # noqa: SIM115 - closed by __exit__
        self.answered: set[str] = set()  # the images of finished lines
        self.unreadable = 0  # how many finished lines have a status other than OK
        try:
            if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
                raise ValueError(
                    f"{self._path} must be a regular file: a later run continues what an earlier one wrote."
                )
            lock(self._file.fileno(), f"Another process writes {self._path}; wait, or give another file.")
            self._read_finished()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> AnswersFile:
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def write(self, image: str, prediction: Prediction) -> None:
        """Appends the server's answer for an image."""
        answer = {"status": prediction.status}
        if prediction.status == contract.STATUS_OK:
            answer["model_version"] = prediction.model_version
            answer |= {name: getattr(prediction, name)[: self._top] for name in ("classes", "class_ids", "scores")}
        self._append(image, answer)

    def write_failure(self, image: str, reason: str) -> None:
        """Appends the reason why an image was not sent."""
        self._append(image, {"status": reason})

    def flush(self) -> None:
        """Hands all lines so far to the operating system, so that they survive if the process is killed."""
        self._file.flush()

    def _append(self, image: str, answer: dict) -> None:
        self._file.write(f"{json.dumps({'image': image, **answer})}\n".encode("ascii"))
        self._count(image, answer["status"])

    def _count(self, image: str, status: str) -> None:
        self.answered.add(image)
        self.unreadable += status != contract.STATUS_OK

    def _read_finished(self) -> None:
        self._file.seek(0)
        for number, line in enumerate(iter(self._file.readline, b""), start=1):
            is_whole = line.endswith(b"\n")
            try:
                answer = json.loads(line)
                self._count(answer["image"], answer["status"])
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                # "Extra data" follows a complete answer: these are joined lines, which must not be dropped.
                is_part = isinstance(error, json.JSONDecodeError) and error.msg != "Extra data"
                if is_whole or not (is_part and line.startswith(_LINE_START[: len(line)])):
                    raise ValueError(
                        f"{self._path}: line {number} was not written by sqz-predict. Give a new file, or one of its "
                        "own; if only the lines at its end are damaged, remove those."
                    ) from error
                self._file.truncate(self._file.tell() - len(line))
                break
            if not is_whole:
                self._file.write(b"\n")
