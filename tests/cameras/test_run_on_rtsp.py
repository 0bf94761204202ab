"""``edgekit run`` on a real RTSP server that is killed and comes back."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import RtspServer

RESUMES_WITHIN_S = 2.0

pytestmark = pytest.mark.slow


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


class Run:
    """A run whose lines go to a file."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._file = folder / "lines.jsonl"
        command = [sys.executable, "-m", "edgekit.cli", "run", "default", "--jsonl", str(self._file), *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def lines(self) -> list[dict[str, Any]]:
        if not self._file.exists():
            return []
        return [json.loads(line) for line in self._file.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def end(self) -> tuple[int, str]:
        _, words = self.process.communicate(timeout=30)
        return self.process.returncode, words


def test_it_goes_on_when_the_camera_is_back_and_gives_up_when_told(
    rtsp_server: RtspServer, clips: dict[tuple[int, int], Path], tmp_path: Path
) -> None:
    rtsp_server.start(clips[240, 320])
    run = Run(tmp_path, "--source", rtsp_server.url, "--retries", "6", "--mask", "off", "--track")
    try:
        wait_until(lambda: len(run.lines()) >= 10)
        rtsp_server.kill()
        time.sleep(1.0)
        before = len(run.lines())
        rtsp_server.start(clips[360, 480])
        back_s = time.time()
        wait_until(lambda: len(run.lines()) >= before + 10)
        rtsp_server.kill()
        code, words = run.end()
    finally:
        run.process.kill()
    assert code == 4
    assert "was lost and did not come back in 6 attempts" in words
    lines = run.lines()
    assert lines[before]["time"] - back_s < RESUMES_WITHIN_S
    indices = [line["frame"] for line in lines]
    assert indices == sorted(set(indices))  # none twice
    assert all(line["age_ms"] < 5000 for line in lines)
    assert all("tracks" in line for line in lines)


def test_two_retries_and_no_camera(tmp_path: Path) -> None:
    run = Run(tmp_path, "--source", "rtsp://127.0.0.1:9/live", "--retries", "2")
    code, words = run.end()
    assert code == 4
    assert "did not appear in 2 attempts" in words
    assert run.lines() == []
