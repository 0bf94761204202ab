"""What the server answers, what it costs the loop, and how it ends."""

from __future__ import annotations

import gc
import http.client
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgekit.errors import MissingDependencyError, UsageError
from edgekit.sinks.live import SourceCounts
from edgekit.sinks.outbox import Counts
from edgekit.tracking.zones import MAX_BYTES, read_zones
from edgekit.view import require_aiohttp, routes
from edgekit.view.address import parse_address

if TYPE_CHECKING:
    from conftest import OpenSite, Site

ZONES = {
    "normalised": True,
    "polygons": [[[0.1, 0.1], [0.9, 0.1], [0.9, 0.9]]],
    "names": ["drive"],
    "lines": [{"name": "gate", "from": [0.1, 0.5], "to": [0.9, 0.5]}],
}


def until(condition: Callable[[], object], *, within_s: float = 10.0) -> None:
    end_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.005)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Watcher:
    """Reads the parts of a multipart stream."""

    def __init__(self, site: Site, query: str = "camera=yard") -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
        self._connection.request("GET", f"/picture.mjpg?{query}")
        self.answer = self._connection.getresponse()

    def picture(self) -> bytes:
        assert self.answer.readline() == b"--picture\r\n"
        headers = {}
        while (line := self.answer.readline().strip()) != b"":
            key, _, value = line.partition(b": ")
            headers[key] = value
        assert headers[b"Content-Type"] == b"image/jpeg"
        body = self.answer.read(int(headers[b"Content-Length"]))
        assert self.answer.readline() == b"\r\n"
        return body

    def close(self) -> None:
        self.answer.close()
        self._connection.close()


def test_the_page_has_nothing_from_elsewhere(site: Site) -> None:
    for path in routes.FILES:
        answer = site.ask(path)
        assert answer.status == 200
        text = answer.body.decode().replace("http://www.w3.org/2000/svg", "")  # the name of a format
        assert "http:" not in text
        assert "https:" not in text
        assert "innerHTML" not in text
        assert "eval(" not in text
    assert b"viewport" in site.ask("/").body
    assert b"prefers-color-scheme" in site.ask("/page.css").body


def test_pictures(site: Site) -> None:
    watcher = Watcher(site)
    seen = []
    for _ in range(4):
        image = cv2.imdecode(np.frombuffer(watcher.picture(), np.uint8), cv2.IMREAD_COLOR)
        assert image.shape == (48, 64, 3)
        seen.append(int(image[46, 60, 0]))
        site.frame(level=100 + 30 * len(seen))
    watcher.close()
    assert seen == sorted(seen)
    assert len(set(seen)) >= 3


def test_nothing_is_encoded_while_nobody_watches(site: Site) -> None:
    pictures = site.server._pictures
    for _ in range(30):
        site.frame()
    assert pictures.encoded == 0
    watcher = Watcher(site)
    watcher.picture()
    watcher.close()
    until(lambda: (site.frame(), pictures._cameras["yard"].task is None)[1])
    encoded = pictures.encoded
    assert encoded >= 1
    for _ in range(30):
        site.frame()
    assert pictures.encoded == encoded


def test_the_rate_of_pictures_is_bounded(site: Site) -> None:
    watcher = Watcher(site)
    done = threading.Event()

    def feed() -> None:
        while not done.wait(0.005):
            site.frame()

    feeder = threading.Thread(target=feed)
    feeder.start()
    start_s = time.monotonic()
    for _ in range(8):
        watcher.picture()
    passed_s = time.monotonic() - start_s
    done.set()
    feeder.join()
    watcher.close()
    assert 0.6 < passed_s < 5


def test_readers_are_limited(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    watchers = [Watcher(site) for _ in range(routes.MOST_PICTURES)]
    for watcher in watchers:
        watcher.picture()
    assert site.ask("/picture.mjpg?camera=yard").status == 503
    assert site.faults("clients") == 1
    for watcher in watchers:
        watcher.close()
    until(lambda: (site.frame(), site.server._pictures._cameras["yard"].watchers == 0)[1])
    another = Watcher(site)
    another.picture()
    another.close()


@pytest.mark.slow
def test_readers_that_never_read_cost_next_to_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "STALLED_S", 4.0)
    channels = []
    for _ in range(4):
        channel = socket.socket()
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        channel.connect(("127.0.0.1", site.port))
        channel.sendall(f"GET /picture.mjpg?camera=yard HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\n\r\n".encode())
        channels.append(channel)
    pictures = site.server._pictures
    camera = pictures._cameras["yard"]
    noise = np.random.default_rng(0).integers(0, 256, (8, 480, 640, 3), np.uint8)  # large pictures
    laps_s: list[float] = []
    stalled: list[int] = []
    watched = 0
    end_s = time.monotonic() + 60
    while time.monotonic() < end_s and not (watched and camera.watchers == 0):
        start_s = time.perf_counter()
        site.frame(picture=noise[site.index % len(noise)])
        laps_s.append(time.perf_counter() - start_s)
        watched = max(watched, camera.watchers)
        if pictures.encoded > 5:
            stalled.append(resident_bytes())
        time.sleep(0.01)
    assert watched == 4
    assert camera.watchers == 0  # they have been let go
    assert np.median(laps_s) < 1e-3
    assert len(stalled) > 50
    assert max(stalled) - stalled[0] < 8e6  # four socket buffers, and a picture
    until(lambda: not site.server._connections._busy)
    for channel in channels:
        channel.close()


def test_publishing_copies_nothing(site: Site) -> None:
    laps_s = []
    site.frame(height=1080, width=1920)
    frame, result = site.server._pictures._cameras["yard"].newest
    for _ in range(1000):
        start_s = time.perf_counter()
        site.server.write(frame, result)
        laps_s.append(time.perf_counter() - start_s)
    assert np.median(laps_s) < 50e-6


def test_a_camera_that_has_no_frame_yet_is_waited_for(open_site: OpenSite) -> None:
    site = open_site()
    site.numbers.watch_source("yard", lambda: SourceCounts(captured=0, state="starting"))
    watcher = Watcher(site)
    assert watcher.answer.status == 200
    site.frame()
    assert watcher.picture()
    watcher.close()


def test_live_numbers(site: Site) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
    connection.request("GET", "/api/live")
    answer = connection.getresponse()
    assert answer.getheader("Content-Type") == "text/event-stream"
    site.numbers.watch_queue("mqtt", lambda: Counts(offered=5, waiting=5))
    documents = []
    for _ in range(2):
        line = answer.readline()
        assert answer.readline() == b"\n"
        documents.append(__import__("json").loads(line.removeprefix(b"data: ")))
    (camera,) = documents[0]["cameras"]
    assert camera["name"] == "yard"
    assert camera["seen"] == {"person": 1}
    assert camera["active_share"] == 0.25
    assert camera["ms"]["detector"] == {"p50": 4.0, "p95": 4.0, "p99": 4.0}
    assert documents[1]["queues"] == {"mqtt": {"waiting": 5, "dropped": 0, "failed": 0}}
    assert documents[0]["stale"] == []
    answer.close()
    connection.close()
    until(lambda: site.ask("/api/history?camera=yard").json())
    assert site.ask("/api/history?camera=yard").json()[0]["ms"]["total"] == 5.0


def test_metrics_are_what_prometheus_reads(site: Site) -> None:
    answer = site.ask("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    values = {
        sample.name: sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }
    assert values["edgekit_frames_processed_total"] == 1
    assert values["edgekit_active_share"] == 0.25


def test_metrics_alone(open_site: OpenSite) -> None:
    site = open_site(page=False)
    site.frame()
    assert site.ask("/metrics").status == 200
    assert site.ask("/healthz").status == 200
    for path in ("/", "/picture.mjpg?camera=yard", "/api/live", "/api/zones?camera=yard"):
        assert site.ask(path).status == 404


def test_health(open_site: OpenSite) -> None:
    site = open_site(stale_s=0.2)
    until(lambda: site.ask("/healthz").status == 503)
    assert site.ask("/healthz").json() == {"status": "stale", "reason": "no frame for over 0.2 s from 1 of 1 cameras"}
    site.frame()
    assert site.ask("/healthz").json() == {"status": "ok"}
    until(lambda: site.ask("/healthz").status == 503)


def test_zones_are_saved_whole(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "zones.json"
    assert site.ask("/api/zones?camera=yard").json() == {"polygons": [], "names": [], "lines": []}
    answer = site.put_zones(ZONES)
    assert answer.status == 200
    zones = read_zones(path)
    assert [zone.name for zone in zones.zones] == ["drive"]
    assert [line.name for line in zones.lines] == ["gate"]
    assert site.ask("/api/zones?camera=yard").json() == answer.json()
    assert site.put_zones({"polygons": []}).status == 200
    assert read_zones(path).zones == ()
    assert [entry.name for entry in tmp_path.iterdir()] == ["zones.json"]


@pytest.mark.parametrize(
    ("document", "status", "words"),
    [
        (b"", 400, "not JSON"),
        (b"{" * 1000, 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        ({"polygons": [[[0, 0], [1, 1]]]}, 400, "at least 3"),
        ({"polygons": [[[0, 0], [2, 0], [1, 1]]]}, 400, "lies outside"),
        ({"polygons": [], "path": "/etc/passwd"}, 400, "unknown"),
        (b'{"polygons": []}' + b" " * MAX_BYTES, 413, "at most"),
    ],
)
def test_other_zones_are_refused(
    site: Site, tmp_path: Path, document: object, status: int, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    site.put_zones(ZONES)
    before = (tmp_path / "zones.json").read_bytes()
    answer = site.put_zones(document)
    assert answer.status == status
    assert words in answer.body.decode()
    assert (tmp_path / "zones.json").read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["zones.json"]
    assert len(caplog.messages) == 1


def test_zones_need_the_right_kind(site: Site) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        assert site.put_zones(ZONES, headers={"Content-Type": kind}).status == 415
    assert site.ask("/api/zones?camera=yard", method="POST", body="{}").status == 405
    assert site.ask("/api/zones?camera=yard", method="DELETE").status == 405


def test_a_disk_that_takes_nothing(open_site: OpenSite, tmp_path: Path) -> None:
    site = open_site(zones=tmp_path / "no" / "zones.json")
    site.frame()
    answer = site.put_zones(ZONES)
    assert answer.status == 507
    assert b"cannot be written" in answer.body
    assert site.faults("storage") == 1


@pytest.mark.parametrize("camera", ["", "other", "../yard", "yard/../../etc", "%2e%2e", "yard%00", "/etc/passwd"])
def test_cameras_are_looked_up(site: Site, tmp_path: Path, camera: str) -> None:
    for path in ("/picture.mjpg", "/api/history", "/api/zones"):
        assert site.ask(f"{path}?camera={camera}").status == 404
    assert site.ask(f"/api/zones?camera={camera}", method="PUT", body="{}").status == 404
    assert list(tmp_path.iterdir()) == []


def test_each_camera_its_own_file(open_site: OpenSite, tmp_path: Path) -> None:
    site = open_site(zones={"yard": tmp_path / "yard.json"})
    assert site.put_zones(ZONES).status == 200
    assert (tmp_path / "yard.json").exists()
    assert open_site(zones=None).put_zones(ZONES).status == 404


@pytest.mark.parametrize(
    "path", ["/../routes.py", "/static/../../routes.py", "/%2e%2e/routes.py", "/page.js/..", "//etc/passwd",
             "/page.js%00", "/..%5croutes.py", "/index.html", "/static/index.html"],
)  # fmt: skip
def test_path_tricks(site: Site, path: str) -> None:
    answer = site.ask(path)
    assert answer.status in (400, 404)
    assert b"def " not in answer.body
    assert b"root:" not in answer.body


def test_the_port_is_in_use(site: Site, open_site: OpenSite) -> None:
    with pytest.raises(UsageError, match=rf"port {site.port} of 127\.0\.0\.1 is in use, maybe by another run"):
        open_site(f"127.0.0.1:{site.port}")


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
def test_ipv6(open_site: OpenSite) -> None:
    try:
        site = open_site("[::1]:0")
    except UsageError as error:
        pytest.skip(f"needs the IPv6 address ::1: {error}")
    connection = http.client.HTTPConnection("::1", site.port, timeout=10)
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    connection.close()
    assert site.server.url == f"http://[::1]:{site.port}/"


def test_addresses_that_are_not_ours(open_site: OpenSite) -> None:
    with pytest.raises(UsageError, match=r"192\.0\.2\.1:0 cannot be listened at"):
        open_site("192.0.2.1:0", token="a-token-of-many-letters")


def test_it_ends_at_once_while_somebody_watches(open_site: OpenSite) -> None:
    site = open_site()
    site.frame()
    threads = threading.active_count()
    watcher = Watcher(site)
    watcher.picture()
    silent = socket.create_connection(("127.0.0.1", site.port))
    start_s = time.monotonic()
    site.server.close()
    assert time.monotonic() - start_s < 1.5
    assert not site.server._thread.is_alive()
    watcher.close()
    silent.close()
    until(lambda: threading.active_count() < threads)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", site.port)) != 0


def test_descriptors_are_given_back(open_site: OpenSite) -> None:
    site = open_site()
    site.frame()
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        watcher = Watcher(site)
        watcher.picture()
        watcher.close()
        site.ask("/metrics")
    until(lambda: (site.frame(), gc.collect(), len(os.listdir("/proc/self/fd")) <= descriptors)[-1])


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    require_aiohttp("serve the page")
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(MissingDependencyError, match=r"aiohttp is needed to serve the page.*\n.*\[view\]"):
        require_aiohttp("serve the page")


def test_its_address_is_told(open_site: OpenSite, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "edgekit")
    site = open_site()
    assert caplog.messages == [f"the page is at http://127.0.0.1:{site.port}/"]
    assert parse_address(f"127.0.0.1:{site.port}") == site.server.address
