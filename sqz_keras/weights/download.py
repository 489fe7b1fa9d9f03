"""Downloads of pretrained files: verified before they get their name, and verified again whenever they are used."""

from __future__ import annotations

import http.client
import os
import pathlib
import secrets
import sys
import urllib.error
import urllib.request

from sqz_keras.weights.records import Record

TIMEOUT_SECONDS = 30
_CHUNK = 1 << 16


def cache_path(record: Record) -> pathlib.Path:
    """Where a record's file is kept: `models/sqz_keras/` in Keras's folder ($KERAS_HOME, or ~/.keras)."""
    home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
    return pathlib.Path(home) / "models" / "sqz_keras" / record.filename


def fetch(record: Record) -> pathlib.Path:
    """The verified file of a record, downloaded if the cache does not hold it.

    It is downloaded to a temporary file, verified and then renamed, so that several processes can do this at once. A
    cached file that no longer verifies is deleted and downloaded again.

    Raises:
        OSError: The download failed, or brought another file; the message names the URL, the place in the cache and
            what to do without a network.
    """
    path = cache_path(record)
    if path.is_file():
        if record.verifies(path.read_bytes()):
            return path
        path.unlink(missing_ok=True)
    if record.url is None:
        raise OSError(f"{record.name} is not published as one file ({record.source}). Give the path of your copy.")
    remedy = f"Without a network, put the file at {path} yourself (from {record.url}), or give its path as weights."
    part = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    print(f"Downloading {record.megabytes} MB from {record.url} to {path}", file=sys.stderr)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(record, part)
        if not record.verifies(part.read_bytes()):
            raise OSError(f"the downloaded file is not the one whose {record.hash_kind} is {record.digest}")
        os.replace(part, path)
    except (OSError, http.client.HTTPException) as error:
        raise OSError(f"Could not download {record.name} from {record.url} to {path}: {error}. {remedy}") from error
    finally:
        part.unlink(missing_ok=True)
    return path


def _download(record: Record, part: pathlib.Path) -> None:
    most = int(2 * record.megabytes * 1e6)
    with urllib.request.urlopen(record.url, timeout=TIMEOUT_SECONDS) as response, open(part, "wb") as file:
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            if file.tell() > most:
                raise OSError(f"more than twice the {record.megabytes} MB that it should have")
