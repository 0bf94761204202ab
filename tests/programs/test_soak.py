"""A run with every sink at once, for a short while; ``scripts/soak.py`` does it for as long as you like."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "soak.py"


@pytest.mark.slow
def test_a_run_with_every_sink_stays_as_it_is_and_ends_at_once() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--frames", "400", "--every", "0.5"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[:3000] + done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["frames"] >= 400
    assert report["lines"] == report["video_frames"] >= report["frames"]
    assert report["pictures"] > 10
    assert report["webhooks"] > 5
    assert report["page_bytes"] > 100_000
    assert report["faults"] == []
