"""How a process keeps memory for later blocks."""

from __future__ import annotations

import ctypes
import platform

# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MOST = (1 << 31) - 1  # mallopt takes an int


def keep_blocks(largest: int = 1 << 30, in_all: int = _MOST) -> None:
    """Lets the C library keep freed blocks of memory for the next ones, in the whole process.

    By default glibc gives large blocks back to the system at once. Where a process makes such blocks again and again,
    the activations of an update or the copies of a message, it then takes longer to map all their pages anew than to
    fill them. Other C libraries are left as they are.

    Args:
        largest: Bytes of the largest block that is kept.
        in_all: Bytes above which free memory goes back after all.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, largest)
        libc.mallopt(_M_TRIM_THRESHOLD, in_all)
