"""A server that is fed by hand, and plain requests to it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.cameras import Frame
from edgekit.detections import Detections
from edgekit.pipeline import FrameResult
from edgekit.sinks.live import LiveNumbers
from edgekit.sinks.metrics import Metrics
from edgekit.sinks.snapshot import annotated_jpeg
from edgekit.spec import DetectorSpec
from edgekit.view.address import parse_address
from edgekit.view.server import Server

SPEC = DetectorSpec(model="tiny", classes=("person", "cat"), height=64, width=64, anchors=(), mask_grid=(4, 4))
TOKEN = "a-token-of-many-letters"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Site:
    """A running server, its numbers, and a camera called ``yard``."""

    def __init__(self, server: Server, numbers: LiveNumbers) -> None:
        self.server, self.numbers = server, numbers
        self.port = server.address.port
        self.index = 0

    def frame(
        self, *, height: int = 48, width: int = 64, level: int | None = None, picture: NDArray[np.uint8] | None = None
    ) -> None:
        """Feed one frame; each is a little brighter than the last."""
        if picture is None:
            picture = np.full((height, width, 3), 100 + self.index % 100 if level is None else level, np.uint8)
        frame = Frame(image=picture, index=self.index, time_s=float(self.index), source="yard")
        result = FrameResult(
            detections=Detections(
                boxes_xyxy=np.array([[10, 12, 30, 40]], np.float32),
                scores=np.array([0.9], np.float32),
                class_ids=np.array([0]),
            ),
            mask=np.eye(4, dtype=np.bool_),
            active_share=0.25,
            timings_ms={"mask": 1.0, "detector": 4.0, "total": 5.0},
        )
        self.index += 1
        self.numbers.write(frame, result)
        self.server.write(frame, result)

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body: bytes | str | None = None,
        token: str | None = None,
    ) -> Answer:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            more = {"Authorization": f"Bearer {token}"} if token else {}
            connection.request(method, path, body=body, headers={**more, **(headers or {})})
            answer = connection.getresponse()
            return Answer(answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def put_zones(self, document: Any, **more: Any) -> Answer:
        body = document if isinstance(document, bytes) else json.dumps(document)
        headers = {"Content-Type": "application/json", **more.pop("headers", {})}
        return self.ask("/api/zones?camera=yard", method="PUT", body=body, headers=headers, **more)

    def faults(self, reason: str) -> int:
        return self.numbers.faults.counts().get(("view", reason), 0)


OpenSite = Callable[..., Site]


@pytest.fixture
def open_site(tmp_path: Path) -> Iterator[OpenSite]:
    """Start a server; it ends with the test."""
    sites: list[Site] = []

    def start(address: str = "127.0.0.1:0", *, page: bool = True, **options: Any) -> Site:
        numbers = LiveNumbers(SPEC.classes, root=tmp_path)
        options.setdefault("zones", tmp_path / "zones.json")
        options.setdefault("metrics", Metrics(numbers))
        if page:
            options.setdefault("encode", lambda frame, result: annotated_jpeg(frame.image, result, SPEC))
        sites.append(Site(Server(parse_address(address), numbers, **options), numbers))
        return sites[-1]

    yield start
    for site in sites:
        site.server.close()
        assert not site.server._thread.is_alive()


@pytest.fixture
def site(open_site: OpenSite) -> Site:
    """On this machine alone, without a token, with one frame."""
    site = open_site()
    site.frame()
    return site


@pytest.fixture
def guarded(open_site: OpenSite) -> Site:
    """Where others can reach it: with a token."""
    site = open_site("0.0.0.0:0", token=TOKEN)
    site.frame()
    return site
