"""That all threads share one heap, counted in a fresh process by glibc itself, and that it gives back what is free."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from edgekit.live import memory

COUNT_HEAPS = """
import ctypes, sys, threading
from contextlib import nullcontext
from edgekit.live.memory import steady_memory

(steady_memory() if sys.argv[1] == "share" else nullcontext()).__enter__()
barrier = threading.Barrier(6)

def work():
    held = [bytearray(20_000) for _ in range(50)]
    barrier.wait()  # all are at it at once

threads = [threading.Thread(target=work) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
output = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, output)
libc.fflush(output)
"""


def heaps(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", COUNT_HEAPS, how], capture_output=True, text=True, check=True)
    return done.stdout.count("<heap ")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="arenas are glibc's")
def test_threads_share_one_heap() -> None:
    assert heaps("default") > 1
    assert heaps("share") == 1


def test_free_memory_goes_back_again_and_again_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    twice, calls = threading.Event(), []

    def note() -> None:
        calls.append(threading.current_thread().name)
        if len(calls) == 2:
            twice.set()

    monkeypatch.setattr(memory, "set_malloc", lambda _settings: True)  # not in the process of all other tests
    monkeypatch.setattr(memory, "return_free_memory", note)
    with memory.steady_memory(every_s=0.01):
        assert twice.wait(10)
    assert set(calls) == {"memory"}
    assert "memory" not in [thread.name for thread in threading.enumerate()]


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "set_malloc", lambda _settings: False)
    monkeypatch.setattr(memory, "return_free_memory", lambda: pytest.fail("called"))
    before = threading.active_count()
    with memory.steady_memory(every_s=0.001):
        assert threading.active_count() == before
