"""The program that measures what a frame costs besides mask and inference: what it says, not how much."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "measure_overhead.py"


@pytest.mark.slow
@pytest.mark.parametrize("source", ["clip", "camera"])
def test_every_set_of_sinks_gets_a_row(source: str) -> None:
    options = ["--camera", "--fps", "50"] if source == "camera" else []
    command = [sys.executable, SCRIPT, "--rounds", "2", "--frames", "5", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr[-2000:]  # of a machine that is busy, nothing is expected
    report = json.loads(done.stdout)
    assert report["source"] == source
    assert report["dense_ms"] > 0
    assert list(report["rows"]) == ["none", "track", "jsonl", "record", "view", "all", "all, watched"]
    for row in report["rows"].values():
        assert row["whole_ms"] >= row["overhead_min_ms"] > 0
