"""The stack that signal handlers run on, kept from OpenVINO.

Its CPU plugin puts a larger one in place when it starts (matrix extensions need room to be saved in), and frees it when
it ends. Two plugins that end in the order in which they started leave the freed one in place, and the next signal,
a Ctrl-C, kills the process: seen with OpenVINO 2026.4 on a processor with AMX.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """``stack_t`` of Linux's ``signal.h``."""

    _fields_ = (("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("bytes", ctypes.c_size_t))


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Put this thread's alternate signal stack back after the block, whatever the block put in its place.

    Where the system refuses the old one (too small by now), the new one stays. Does nothing but on Linux.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    libc, before = ctypes.CDLL(None), _Stack()
    known = libc.sigaltstack(None, ctypes.byref(before)) == 0
    try:
        yield
    finally:
        if known:
            libc.sigaltstack(ctypes.byref(before), None)
