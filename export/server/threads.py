"""The threads of TensorFlow in a server of these models.

A convolution is too small to be split: threads pay off between operations, where the exported graph divides its work,
not inside an operation.
"""

from __future__ import annotations

import os
import pathlib

INSIDE_AN_OPERATION = 1
_NAME = "tf_Compute"  # TensorFlow's name for its threads between operations, on Linux


def between_operations() -> int:
    """The number of threads between operations: one for each core that this process may use."""
    return len(_cores()) or os.cpu_count() or 1


def keep_apart() -> None:
    """Keeps each thread between operations on a core of its own; has an effect on Linux only.

    Linux often lets the two threads of a call with one image share a core while another core is idle (docs/notes.md).
    TensorFlow must have run something before, since only then does it create its threads. Nothing happens if their
    number is not that of the cores.
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
    except OSError:  # the thread has just ended
        return ""


def _cores() -> list[int]:
    """The cores that this process may use; empty if the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
