"""Freed memory is used again: counted in pages that the system had to give, in a process of its own."""

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.ingest
CHILD = """
import resource, sys
import numpy as np
from ingest.pixels.heap import keep_freed_memory

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        arrays = [np.ones((264, 264)) for _ in range(8)]
        del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

plain = pages()
keep_freed_memory()
pages()
print(plain, pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the settings")
def test_freed_memory_is_used_again() -> None:
    told = subprocess.run([sys.executable, "-c", CHILD], text=True, capture_output=True, check=True, timeout=60)
    plain, kept = map(int, told.stdout.split())
    assert kept < plain / 10
