"""What a run leaves behind for programs to read."""

from __future__ import annotations

import json
import os

from sqz_keras.files import write_file


def write_json(path: str | os.PathLike, results: dict) -> None:
    """Writes `results` as JSON, whole or not at all."""
    write_file(path, (json.dumps(results, indent=1) + "\n").encode())
