"""Freed blocks are reused: a loop over large arrays stops faulting pages in."""

from __future__ import annotations

import subprocess
import sys

import pytest


_COUNT = """
import resource, sys
import numpy as np
from hf_ta_cleaner.models.allocator import keep_freed_memory

def faults():
    start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(40_000_000, dtype=np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start

before = faults()
took = keep_freed_memory()
faults()
print(before, took, faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_large_blocks_are_kept():
    done = subprocess.run([sys.executable, "-c", _COUNT], capture_output=True, text=True, check=True)
    before, took, after = done.stdout.split()
    if took == "False":
        pytest.skip("this C library has no mallopt")
    assert int(after) < int(before) / 20
