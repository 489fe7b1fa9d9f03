"""Reads files of certificates and keys for TLS, in the form that gRPC's library accepts."""

from __future__ import annotations

import os
import pathlib
import re

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)
_CERTIFICATE = b"CERTIFICATE"


def read_pem(path: str | os.PathLike, *, certificates: bool = False) -> list[bytes]:
    """The blocks of a PEM file, without what surrounds them.

    A block may follow a byte order mark, which hides it from gRPC's library, or text from openssl, which need not be
    ASCII.

    Args:
        path: The file.
        certificates: Return certificates only, no other blocks such as keys.

    Returns:
        The blocks, each with a line end.

    Raises:
        OSError: The file cannot be read.
    """
    blocks = _BLOCK.finditer(pathlib.Path(path).read_bytes())
    return [block[0] + b"\n" for block in blocks if not certificates or block[1] == _CERTIFICATE]
