"""The threads of TensorFlow in a server of these models.

A convolution is too small to be split: threads pay between operations, where the exported graph divides its work, not
inside of them.
"""

from __future__ import annotations

import os
import pathlib

INSIDE_AN_OPERATION = 1
_NAME = "tf_Compute"  # that TensorFlow gives to threads between operations, on Linux


def between_operations() -> int:
    """One for each core that this process may use."""
    return len(_cores()) or os.cpu_count() or 1


def keep_apart() -> None:
    """Keeps each thread between operations on a core of its own, where the system is Linux.

    The system often lets the two threads of a call with one image share a core while another core is idle
    (docs/notes.md). TensorFlow must have run something before, as it makes its threads then. Nothing happens if it made
    other threads than one for each core.
    """
    cores, tasks = _cores(), pathlib.Path("/proc/self/task")
    if not cores or not tasks.is_dir():
        return
    threads = sorted(int(task.name) for task in tasks.iterdir() if _name(task) == _NAME)
    if len(threads) == len(cores):
        for thread, core in zip(threads, cores, strict=True):
            os.sched_setaffinity(thread, {core})


def _name(task: pathlib.Path) -> str:
    try:
        return (task / "comm").read_text().strip()
    except OSError:  # it has just ended
        return ""


def _cores() -> list[int]:
    """The cores that this process may use; none where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
