"""What a run leaves behind for people and programs to read."""

from __future__ import annotations

import json
import os
import pathlib


def check_writable(path: str | os.PathLike) -> None:
    """Refuses a report that could not be written, before the work that it would report.

    Raises:
        ValueError: `path` is a folder, or the folder it belongs in does not exist or takes no files.
    """
    path = pathlib.Path(path)
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise ValueError(f"The report {path} must be a file in an existing folder that you may write to.")


def write_json(path: str | os.PathLike, results: dict) -> None:
    """Writes `results` as JSON, whole or not at all."""
    write_file(path, (json.dumps(results, indent=1) + "\n").encode())


def write_file(path: str | os.PathLike, data: bytes) -> None:
    """Writes a file whole or not at all; one that is there already is replaced."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
