"""The page in a real browser: it shows the picture, draws and saves zones, with a mouse and with a finger."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgekit.tracking.zones import read_zones

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")

if TYPE_CHECKING:
    from conftest import OpenSite, Site

TOKEN = "a-token-of-many-letters"
PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="needs a browser: apt-get install chromium"),
]

SHOWN = """() => {
    const image = document.getElementById("picture"), canvas = document.createElement("canvas");
    if (!image.naturalWidth) return null;
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const pen = canvas.getContext("2d");
    pen.drawImage(image, 0, 0);
    return [...pen.getImageData(canvas.width - 4, 4, 1, 1).data].join();
}"""
"""The colour of one pixel of the picture that is shown; null before there is one."""

INKED = """(id) => {
    const canvas = document.getElementById(id);
    const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    return data.some((value) => value !== 0);
}"""


@pytest.fixture
def live(open_site: OpenSite) -> Iterator[Site]:
    """A camera whose picture changes ten times a second, behind a token."""
    site = open_site("0.0.0.0:0", token=TOKEN)
    done = threading.Event()

    def feed() -> None:
        while not done.wait(0.1):
            site.frame(height=480, width=640, level=40 + 20 * (site.index % 10))

    feeder = threading.Thread(target=feed)
    feeder.start()
    yield site
    done.set()
    feeder.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sandbox = [] if os.geteuid() else ["--no-sandbox"]  # Chromium's own does not work for root
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=PROGRAM, args=["--disable-gpu", *sandbox])
        yield browser
        browser.close()


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def page(browser: Any, live: Site, complaints: list[str]) -> Iterator[Any]:
    """The page on a desk; it must ask nobody else for anything, and the console must stay empty."""
    yield from _open(browser, live, complaints, viewport={"width": 1280, "height": 900})


@pytest.fixture
def phone(browser: Any, live: Site, complaints: list[str]) -> Iterator[Any]:
    """The page on a small dark screen that is touched."""
    yield from _open(
        browser, live, complaints, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True,
        device_scale_factor=2, color_scheme="dark",
    )  # fmt: skip


def _open(browser: Any, live: Site, complaints: list[str], **options: Any) -> Iterator[Any]:
    context = browser.new_context(**options)
    page = context.new_page()
    own = f"http://127.0.0.1:{live.port}/"
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request", lambda request: None if request.url.startswith((own, "data:")) else complaints.append(request.url)
    )
    page.goto(f"{own}?token={TOKEN}")
    page.wait_for_function(SHOWN)
    yield page
    context.close()
    assert complaints == []


def tap(page: Any, x: float, y: float, *, touch: bool = False) -> None:
    """A place of the picture, 0..1."""
    box = page.locator("#overlay").bounding_box()
    tool = page.touchscreen.tap if touch else page.mouse.click
    tool(box["x"] + x * box["width"], box["y"] + y * box["height"])


def test_it_shows_the_picture(page: Any, live: Site) -> None:
    first = page.evaluate(SHOWN)
    page.wait_for_function(f"() => ({SHOWN})() !== {first!r}")
    assert page.evaluate("document.getElementById('picture').naturalWidth") == 640
    assert page.url == f"http://127.0.0.1:{live.port}/"  # the token is gone from it
    page.wait_for_function("() => document.getElementById('seen').textContent === 'sees person 1'")
    page.wait_for_function("() => document.getElementById('state').textContent === 'open'")
    for chart in ("fps", "ms", "age", "share"):
        page.wait_for_function(INKED, arg=f"chart-{chart}")
    assert page.text_content("#now-share") == "25"
    assert page.text_content("#now-ms") == "5 / 5 / 5"


def test_it_draws_and_saves_a_zone(page: Any, live: Site, tmp_path: Path) -> None:
    page.click("#add-zone")
    for corner in ((0.2, 0.2), (0.7, 0.2), (0.95, 0.95), (0.7, 0.8)):
        tap(page, *corner)
    page.click("#undo")
    tap(page, 0.2, 0.8)
    page.click("#finish")
    page.fill("#shapes input", "drive")
    page.click("#add-line")
    tap(page, 0.1, 0.5)
    tap(page, 0.9, 0.5)
    page.click("#save")
    page.wait_for_function("() => document.getElementById('hint').textContent === 'Saved.'")
    zones = read_zones(tmp_path / "zones.json")
    ((zone,), (line,)) = zones.zones, zones.lines
    assert zone.name == "drive"
    assert zone.corners == pytest.approx(np.array([[0.2, 0.2], [0.7, 0.2], [0.95, 0.95], [0.2, 0.8]]), abs=0.01)
    assert line.name == "line 1"
    assert [*line.start, *line.end] == pytest.approx([0.1, 0.5, 0.9, 0.5], abs=0.01)

    page.reload()
    page.wait_for_function(SHOWN)
    page.wait_for_function("() => document.querySelectorAll('#shapes li').length === 2")
    assert page.input_value("#shapes li:first-child input") == "drive"
    box = page.locator("#overlay").bounding_box()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.2 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"], steps=5)
    page.mouse.up()
    page.click("#shapes li:nth-child(2) button")
    page.click("#save")
    page.wait_for_function("() => document.getElementById('hint').textContent === 'Saved.'")
    zones = read_zones(tmp_path / "zones.json")
    assert zones.zones[0].corners[0] == pytest.approx([0.3, 0.3], abs=0.01)
    assert zones.lines == ()


def test_a_finger_is_enough(phone: Any, tmp_path: Path) -> None:
    phone.tap("#add-zone")
    for corner in ((0.2, 0.2), (0.8, 0.2), (0.5, 0.8), (0.21, 0.21)):  # the last is the first again
        tap(phone, *corner, touch=True)
    phone.tap("#save")
    phone.wait_for_function("() => document.getElementById('hint').textContent === 'Saved.'")
    assert len(read_zones(tmp_path / "zones.json").zones[0].corners) == 3
    assert phone.evaluate("document.documentElement.scrollWidth") == 360
    small = (
        "[...document.querySelectorAll('button, input')].filter((e) => e.offsetParent && e.offsetHeight < 44).length"
    )
    assert phone.evaluate(small) == 0


def test_two_of_one_name_are_refused_in_words(page: Any, tmp_path: Path, complaints: list[str]) -> None:
    for number in range(2):
        page.click("#add-zone")
        for corner in ((0.2, 0.2), (0.8, 0.2), (0.5, 0.8 - 0.1 * number)):
            tap(page, *corner)
        page.click("#finish")
    page.fill("#shapes li:nth-child(2) input", "zone 1")
    page.click("#save")
    page.wait_for_function("() => document.getElementById('hint').classList.contains('bad')")
    assert "called 'zone 1'" in page.text_content("#hint")
    assert not (tmp_path / "zones.json").exists()
    assert page.locator("#shapes li").count() == 2  # nothing that was drawn is lost
    assert [text for text in complaints if "400" not in text] == []
    complaints.clear()


def test_a_page_that_is_left_costs_nothing(browser: Any, page: Any, live: Site) -> None:
    pictures = live.server._pictures
    assert pictures._cameras["yard"].watchers == 1
    page.goto("about:blank")
    deadline = threading.Event()
    for _ in range(200):
        if pictures._cameras["yard"].watchers == 0:
            break
        deadline.wait(0.05)
    assert pictures._cameras["yard"].watchers == 0


def test_the_token_is_asked_for(browser: Any, live: Site) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{live.port}/")
    page.fill("input[name=token]", TOKEN)
    page.click("button")
    page.wait_for_function(SHOWN)
    assert page.url == f"http://127.0.0.1:{live.port}/"
    context.close()
