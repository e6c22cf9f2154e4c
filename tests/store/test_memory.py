"""Freed memory is used again without the system's help, unless the user has said otherwise."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")

PROGRAM = """
import resource
import numpy as np
from mlipdb.store.memory import keep_freed_memory
kept = keep_freed_memory()
def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        arrays = [np.ones(1 << 18) for _ in range(4)]  # 2 MiB each, 512 pages
        del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
pages()
print(kept, pages())
"""


def run(**environment):
    """Whether memory is kept, and the pages that 50 rounds of arrays took anew."""
    words = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
    usual = {name: value for name, value in os.environ.items() if name not in words}
    program = [sys.executable, "-c", PROGRAM]
    found = subprocess.run(program, env=usual | environment, capture_output=True, text=True, check=True).stdout.split()
    return found[0] == "True", int(found[1])


def test_arrays_that_come_and_go_take_no_pages_anew():
    kept, pages = run()
    assert kept
    assert pages < 200, "less than one for each array that was made"


def test_what_the_user_says_of_memory_holds():
    kept, pages = run(MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="131072")
    assert not kept
    assert pages >= 200, "each array had memory of its own, of small pages or a large one"
