"""``edgekit run --view`` in a real browser: a zone that is drawn there makes the detector look at less."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="needs a browser: apt-get install chromium"),
]


class Running:
    """A run on the demo, and what it says about itself."""

    def __init__(self, folder: Path) -> None:
        self.zones = folder / "zones.json"
        self.zones.write_text('{"polygons": []}')
        command = [
            sys.executable, "-m", "edgekit.cli", "run", "default", "--source", "yard=demo", "--loop", "--jsonl",
            str(folder / "lines.jsonl"), "--mask", f"off & roi({self.zones})", "--zones", str(self.zones),
            "--view", "127.0.0.1:0",
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.port = self._port()

    def _port(self) -> int:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.search(r"the page is at http://127\.0\.0\.1:(\d+)/", line):
                return int(found[1])
        raise AssertionError(f"the run ended with {self.process.wait()}")

    def metric(self, name: str) -> float:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        families = {sample.name: sample for one in text_string_to_metric_families(text) for sample in one.samples}
        return float(families[name].value)

    def wait_for(self, name: str, *, below: float | None = None, above: float | None = None) -> float:
        end = time.monotonic() + 20
        while True:
            value = self.metric(name)
            if (below is None or value < below) and (above is None or value > above):
                return value
            assert time.monotonic() < end, f"{name} stays at {value}"
            time.sleep(0.1)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    run = Running(tmp_path)
    yield run
    run.process.kill()
    run.process.communicate()


@pytest.fixture
def page(running: Running) -> Iterator[Any]:
    sandbox = [] if os.geteuid() else ["--no-sandbox"]  # Chromium's own does not work for root
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=PROGRAM, args=["--disable-gpu", *sandbox])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(f"http://127.0.0.1:{running.port}/")
        yield page
        browser.close()


def tap(page: Any, x: float, y: float) -> None:
    box = page.locator("#overlay").bounding_box()
    page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])


def test_a_zone_that_is_drawn_makes_the_active_share_fall(page: Any, running: Running) -> None:
    page.wait_for_function("() => document.getElementById('picture').naturalWidth > 0")
    whole = running.wait_for("edgekit_active_share", above=0.5)
    macs = running.metric("edgekit_executed_macs")
    page.click("#add-zone")
    for corner in ((0.1, 0.1), (0.4, 0.1), (0.4, 0.4), (0.1, 0.4)):
        tap(page, *corner)
    page.click("#finish")
    page.click("#save")
    assert running.wait_for("edgekit_active_share", below=whole / 3) > 0
    assert running.metric("edgekit_executed_macs") < macs / 2
    (corners,) = json.loads(running.zones.read_text())["polygons"]
    assert len(corners) == 4
    assert min(map(min, corners)) == pytest.approx(0.1, abs=0.02)

    running.process.send_signal(signal.SIGTERM)
    asked_s = time.monotonic()
    assert running.process.wait(10) == 128 + signal.SIGTERM
    assert time.monotonic() - asked_s < 2
