"""Files of certificates and keys for TLS, as gRPC's library takes them."""

from __future__ import annotations

import os
import pathlib
import re

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)
_CERTIFICATE = b"CERTIFICATE"


def read_pem(path: str | os.PathLike, *, certificates: bool = False) -> list[bytes]:
    """The blocks of a PEM file, without what is around them.

    That may be a byte order mark, behind which gRPC's library finds no block, or text of openssl, which need not be
    ASCII.

    Args:
        path: The file.
        certificates: Leave out all other blocks, such as keys.

    Returns:
        The blocks, each with the end of its line.

    Raises:
        OSError: It cannot be read.
    """
    blocks = _BLOCK.finditer(pathlib.Path(path).read_bytes())
    return [block[0] + b"\n" for block in blocks if not certificates or block[1] == _CERTIFICATE]
