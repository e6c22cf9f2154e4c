"""Freed memory stays with the process: the C library would hand it back and take it anew, page by page."""

import ctypes
import os
import platform
from functools import cache

KEPT = 32 << 20  # bytes: the most that glibc lets one say
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's mallopt(3)
_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")


@cache
def keep_freed_memory() -> bool:
    """Have glibc keep up to 32 MiB of freed memory; whether it does now.

    Reading and packing many records makes arrays of a few MB that live for milliseconds; their pages, new each time,
    cost up to a tenth of it. Nothing is done where the environment sets one of glibc's variables for this, or
    the C library is another.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _VARIABLES):
        return False
    library = ctypes.CDLL(None)
    return all(library.mallopt(option, KEPT) == 1 for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD))
