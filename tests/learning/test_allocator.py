"""That freed memory stays: counted in page faults of a fresh process, not in seconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource, sys, torch
from edgekit.learning.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
torch.set_num_threads(1)
weight = torch.ones(1, requires_grad=True)

def step():
    (torch.ones(16 << 20) * weight).mean().backward()  # 64 MB, once more in autograd's own thread

for _ in range(20):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", COUNT_FAULTS, how], capture_output=True, text=True, check=True, timeout=120
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_later_steps_take_no_new_pages() -> None:
    kept, returned = faults("keep"), faults("default")
    assert returned > 4 * (64 << 20) / 4096  # each step takes at least one tensor's pages anew
    assert kept < returned / 4
