"""That free memory goes back to the kernel, also from between blocks that are in use."""

from __future__ import annotations

import subprocess
import sys

import pytest

MEASURE = """
from pathlib import Path
from edgekit.glibc import return_free_memory

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

blocks = [bytearray(b"x" * 100_000) for _ in range(500)]
held = blocks[::10]
before = resident_mb()
del blocks
freed = resident_mb()
return_free_memory()
print(before - freed, freed - resident_mb())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="malloc_trim is glibc's")
def test_pages_between_blocks_in_use_go_back() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    by_itself_mb, asked_mb = map(float, done.stdout.split())
    assert by_itself_mb < 5
    assert asked_mb > 30
