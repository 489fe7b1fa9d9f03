"""Keeps a process's freed memory for later blocks."""

from __future__ import annotations

import ctypes
import platform

# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MOST = (1 << 31) - 1  # mallopt takes an int


def keep_blocks(largest: int = 1 << 30, in_all: int = _MOST) -> None:
    """Lets the C library keep freed blocks of memory for the next ones, in the whole process.

    By default glibc gives large blocks back to the system at once. A process that allocates them again and again, such
    as the activations of an update or the copies of a message, then spends longer on mapping their pages anew than on
    filling them. Other C libraries are left as they are.

    Args:
        largest: Bytes of the largest block to keep.
        in_all: Bytes of free memory above which it goes back to the system after all.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, largest)
        libc.mallopt(_M_TRIM_THRESHOLD, in_all)
