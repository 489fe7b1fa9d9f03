"""The threads of TensorFlow in a server of these models.

A convolution is too small to be split: threads pay between operations, where the exported graph divides its work, not
inside of them.
"""

from __future__ import annotations

import os

INSIDE_AN_OPERATION = 1


def between_operations() -> int:
    """One for each core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
