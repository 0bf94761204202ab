"""Memory that stays the same for a year.

glibc gives each thread a heap of its own. A frame is allocated by the thread that reads it and freed by whichever sink
is the last to let go of it, so every heap gets holes, each at another time: with all sinks a run grew by 8 MB in its
first 12,000 frames and went on. One heap reuses what any thread frees. Threads rarely wait for each other there: small
blocks come from caches of their own, and pixels are few and large.

What is left are moments that need more than others, such as a full queue or a video that is read back: their memory
would stay with the heap for ever, between blocks that are in use. It is given back each minute.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from edgekit.glibc import M_ARENA_MAX, return_free_memory, set_malloc

EVERY_S = 60.0
"""Some milliseconds each time, in which others who want large blocks wait."""


@contextmanager
def steady_memory(*, every_s: float = EVERY_S) -> Iterator[None]:
    """One heap for all threads that begin from now on, whose free pages go back every ``every_s`` seconds.

    Without glibc nothing happens.
    """
    if not set_malloc({M_ARENA_MAX: 1}):
        yield
        return
    ended = threading.Event()

    def give_back() -> None:
        while not ended.wait(every_s):
            return_free_memory()

    thread = threading.Thread(target=give_back, name="memory", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(1.0)
