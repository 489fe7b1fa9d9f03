"""How a server's process keeps memory between calls."""

from __future__ import annotations

import ctypes
import platform

from export import contract

# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_MESSAGES = 4


def keep_message_buffers() -> None:
    """Lets the C library keep the memory of messages for the next ones, in the whole process.

    By default it gives large blocks back to the system at once. A message of 32 arrays, 20 MB, is copied several times
    on its way, and to map every page of every copy again takes longer than copying. Larger blocks than the largest
    message, such as decoded images of many megapixels, still go back at once.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, contract.MAX_MESSAGE_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_MESSAGES * contract.MAX_MESSAGE_BYTES)
