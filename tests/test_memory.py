"""The pages of a large block are mapped once, not each time that the block is allocated."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np
from sqz_keras.memory import keep_blocks

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(40 << 20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

default = faults()
keep_blocks({arguments})
print(default, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
@pytest.mark.parametrize(("arguments", "are_kept"), [("", True), ("50 << 20, 100 << 20", True), ("30 << 20", False)])
def test_large_blocks_are_kept(arguments, are_kept):
    program = PROGRAM.format(arguments=arguments)
    environment = os.environ | {"NUMPY_MADVISE_HUGEPAGE": "0"}  # huge pages are too few to count
    output = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, env=environment
    )
    default, kept = map(int, output.stdout.split())
    assert default > 10_000
    assert (kept < default / 5) == are_kept
