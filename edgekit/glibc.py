"""glibc's malloc, set from inside the process: mallopt(3) and malloc_trim(3)."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping

# Names and values of <malloc.h>.
M_TRIM_THRESHOLD = -1
M_TOP_PAD = -2
M_MMAP_MAX = -4
M_ARENA_MAX = -8


def set_malloc(settings: Mapping[int, int]) -> bool:
    """Parameter -> value; ``False`` where there is another C library, which stays as it is."""
    libc = _libc()
    if libc is None:
        return False
    libc.mallopt.argtypes, libc.mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    answers = [libc.mallopt(name, value) for name, value in settings.items()]
    return all(answer == 1 for answer in answers)


def return_free_memory() -> None:
    """Give the kernel every page on which nothing is left, also between blocks that are in use; some milliseconds."""
    libc = _libc()
    if libc is not None:
        libc.malloc_trim(ctypes.c_size_t(0))


def _libc() -> ctypes.CDLL | None:
    """glibc; None on other systems, and where another C library (musl) is in its place."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
