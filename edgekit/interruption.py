"""A Ctrl-C that a library swallowed still ends the program before anything is put in its place.

CPython raises ``KeyboardInterrupt`` wherever the signal happens to find it, and some of what runs there catches
everything: ``copyreg`` during a ``copy.deepcopy`` of a model, ``__del__`` methods, callbacks from C. Such a Ctrl-C
would be lost, and a long export would go on and write its result. So the command line notes each one (``remember``),
and whoever is about to make something final asks (``check``).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_interrupted = False


@contextmanager
def remember() -> Iterator[None]:
    """Note each Ctrl-C during the block, and raise it as usual.

    Leaves signals alone outside the main thread and where Ctrl-C is ignored or handled by someone else.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    global _interrupted
    _interrupted = False
    signal.signal(signal.SIGINT, _note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _interrupted = False


def check() -> None:
    """Raise the ``KeyboardInterrupt`` that was swallowed since ``remember``, if there was one."""
    if _interrupted:
        raise KeyboardInterrupt


def _note(_number: int, _frame: FrameType | None) -> None:
    global _interrupted
    _interrupted = True
    raise KeyboardInterrupt
