"""What each path answers.

======================== ======= ===================================================================================
path                     method  answer
======================== ======= ===================================================================================
``/``                    GET     the page; its script and style sheet beside it
``/picture.mjpg``        GET     ``?camera=``: the newest pictures, as long as somebody reads (multipart)
``/api/live``            GET     the numbers of all cameras once a second (server-sent events)
``/api/history``         GET     ``?camera=``: those of the last ten minutes
``/api/zones``           GET     ``?camera=``: zones and lines as the file has them
``/api/zones``           PUT     ``?camera=``: replaces them; JSON as in ``edgekit.tracking.zones``
``/metrics``             GET     Prometheus's text format
``/healthz``             GET     200 while every camera's frames are fresh, otherwise 503
======================== ======= ===================================================================================

No path of a request ever becomes one of the disk: the page's files are in memory, and a camera's name is looked up.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from aiohttp import web

from edgekit.errors import StorageError, UsageError
from edgekit.sinks.live import CameraReading, Distribution, LiveNumbers
from edgekit.sinks.metrics import Metrics
from edgekit.tracking.zones import MAX_BYTES, Zones, parse_zones, read_zones, zones_document
from edgekit.tracking.zones_file import save_zones
from edgekit.view.access import Access
from edgekit.view.pictures import Pictures

MOST_PICTURES, MOST_LIVE = 8, 16
"""Readers of pictures and of numbers at one time."""

LIVE_S = 1.0
STALLED_S = 10.0
"""A reader who takes nothing for so long is let go."""

BODY_S = 10.0
"""For the body of a request to arrive."""

FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/charts.js": ("charts.js", "text/javascript"),
    "/zones.js": ("zones.js", "text/javascript"),
}

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' data:; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "edgekit",
}

ZonesFiles = Path | Mapping[str, Path] | None
"""One file for every camera, one for each, or none."""


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """To every answer."""
    response.headers.update(HEADERS)


class Routes:
    """The handlers.

    Args:
        pictures: None where no page is served.
        metrics: None where no metrics are served.
        zones: where zones are kept.
        stale_s: frames are fresh for so long.
    """

    def __init__(
        self,
        numbers: LiveNumbers,
        access: Access,
        *,
        pictures: Pictures | None,
        metrics: Metrics | None,
        zones: ZonesFiles,
        stale_s: float,
    ) -> None:
        self._numbers, self._access = numbers, access
        self._pictures, self._metrics = pictures, metrics
        self._zones, self._stale_s = zones, stale_s
        self._picture_places, self._live_places = _Places(MOST_PICTURES), _Places(MOST_LIVE)
        self._saving = asyncio.Lock()
        self._document: dict[str, Any] = {}
        self._document_s = float("-inf")
        folder = resources.files("edgekit.view").joinpath("static")
        self._files = {path: (folder.joinpath(name).read_bytes(), kind) for path, (name, kind) in FILES.items()}

    def add_to(self, app: web.Application) -> None:
        """Register the paths of what is served."""
        app.router.add_get("/healthz", self.health)
        if self._metrics is not None:
            app.router.add_get("/metrics", self.metrics)
        if self._pictures is not None:
            for path in FILES:
                app.router.add_get(path, self.file)
            app.router.add_get("/picture.mjpg", self.picture, allow_head=False)
            app.router.add_get("/api/live", self.live, allow_head=False)
            app.router.add_get("/api/history", self.history)
            app.router.add_get("/api/zones", self.get_zones)
            app.router.add_put("/api/zones", self.put_zones)

    async def file(self, request: web.Request) -> web.Response:
        """A file of the page."""
        body, kind = self._files[request.path]
        return web.Response(body=body, content_type=kind, charset="utf-8")

    async def health(self, _request: web.Request) -> web.Response:
        """Readable without a token, so it says no more than how many cameras are stale."""
        stale, known = self._numbers.stale(self._stale_s), self._numbers.cameras()
        if not stale:
            return web.json_response({"status": "ok"})
        reason = f"no frame for over {self._stale_s:g} s from {len(stale)} of {max(1, len(known))} cameras"
        return web.json_response({"status": "stale", "reason": reason}, status=503)

    async def metrics(self, _request: web.Request) -> web.Response:
        """For Prometheus."""
        assert self._metrics is not None
        body = await asyncio.to_thread(self._metrics.text)
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def picture(self, request: web.Request) -> web.StreamResponse:
        """A part for each picture, as long as the reader takes them."""
        assert self._pictures is not None
        camera = request.query.get("camera", "")
        if camera not in self._numbers.cameras():
            return self._access.refuse(request, "not_found", "no such camera", 404)
        if not self._picture_places.take():
            return self._access.refuse(request, "clients", "too many are watching", 503)
        try:
            response = web.StreamResponse(headers={"Content-Type": "multipart/x-mixed-replace; boundary=picture"})
            await response.prepare(request)
            # The boundary comes right after each picture, because browsers show one when they see its end.
            await response.write(b"--picture\r\n")
            async with contextlib.aclosing(self._pictures.watch(camera)) as jpegs:
                async for jpeg in jpegs:
                    head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode()
                    await _write(request, response, head + jpeg + b"\r\n--picture\r\n")
            return response
        finally:
            self._picture_places.give_back()

    async def live(self, request: web.Request) -> web.StreamResponse:
        """An event a second."""
        if not self._live_places.take():
            return self._access.refuse(request, "clients", "too many are watching", 503)
        try:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            async for document in self._documents():
                await _write(request, response, b"data: " + json.dumps(document).encode() + b"\n\n")
            return response
        finally:
            self._live_places.give_back()

    async def _documents(self) -> AsyncIterator[dict[str, Any]]:
        while True:
            if time.monotonic() - self._document_s > LIVE_S / 2:  # many readers cost hardly more than one
                self._document = await asyncio.to_thread(self._make_document)
                self._document_s = time.monotonic()
            yield self._document
            await asyncio.sleep(LIVE_S)

    def _make_document(self) -> dict[str, Any]:
        temperature = self._numbers.temperature_c()
        return {
            "cameras": [_reading_json(self._numbers.read(name)) for name in self._numbers.cameras()],
            "stale": self._numbers.stale(self._stale_s),
            "temperature_c": temperature,
            "throttled": self._numbers.throttled(),
            "queues": {
                name: {"waiting": counts.waiting, "dropped": counts.dropped, "failed": counts.failed}
                for name, counts in self._numbers.queues().items()
            },
        }

    async def history(self, request: web.Request) -> web.Response:
        """Points of the charts, oldest first."""
        try:
            return web.json_response(self._numbers.history(request.query.get("camera", "")))
        except KeyError:
            return self._access.refuse(request, "not_found", "no such camera", 404)

    async def get_zones(self, request: web.Request) -> web.Response:
        """As the file has them; empty where there is none yet."""
        path = self._zones_path(request)
        if path is None:
            return self._access.refuse(request, "not_found", "this camera has no zones file", 404)
        try:
            zones = await asyncio.to_thread(read_zones, path) if path.exists() else Zones()
        except UsageError as error:
            return web.Response(status=409, text=f"{error}\n")
        return web.Response(body=zones_document(zones), content_type="application/json")

    async def put_zones(self, request: web.Request) -> web.Response:
        """Replace them, or leave the file as it is and say why."""
        path = self._zones_path(request)
        if path is None:
            return self._access.refuse(request, "not_found", "this camera has no zones file", 404)
        if request.content_type != "application/json":  # which a form of another site cannot send
            return self._access.refuse(request, "bad_request", "zones are application/json", 415)
        try:
            body = await asyncio.wait_for(request.read(), BODY_S)
        except web.HTTPRequestEntityTooLarge:
            return self._access.refuse(request, "too_large", f"zones are at most {MAX_BYTES} bytes", 413)
        except TimeoutError:
            return self._access.refuse(request, "slow", "the body did not arrive in time", 408)
        try:
            zones = parse_zones(body, "the zones")
        except UsageError as error:
            return self._access.refuse(request, "bad_zones", str(error), 400)
        try:
            async with self._saving:
                await asyncio.to_thread(save_zones, path, zones)
        except StorageError as error:
            return self._access.refuse(request, "storage", str(error).partition("\n")[0], 507)
        return web.Response(body=zones_document(zones), content_type="application/json")

    def _zones_path(self, request: web.Request) -> Path | None:
        camera = request.query.get("camera", "")
        if isinstance(self._zones, Path):
            return self._zones if camera in self._numbers.cameras() else None
        return (self._zones or {}).get(camera)


class _Places:
    """A number of readers."""

    def __init__(self, most: int) -> None:
        self._free = most

    def take(self) -> bool:
        if self._free == 0:
            return False
        self._free -= 1
        return True

    def give_back(self) -> None:
        self._free += 1


async def _write(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    """Write, and wait until the reader has taken nearly everything; one who takes nothing is let go."""
    try:
        await asyncio.wait_for(response.write(data), STALLED_S)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()  # closing would wait for what was sent to be taken
        raise ConnectionResetError("the reader takes nothing") from None


def _reading_json(reading: CameraReading) -> dict[str, Any]:
    return {
        "name": reading.name,
        "fps": round(reading.fps, 2),
        "processed": reading.processed,
        "captured": reading.source.captured if reading.source else None,
        "dropped": dict(reading.source.dropped) if reading.source else {},
        "state": reading.source.state if reading.source else "open",
        "seen": dict(reading.seen),
        "tracks": reading.tracks,
        "active_share": round(reading.active_share, 4),
        "executed_macs": reading.executed_macs,
        "since_frame_s": round(reading.since_frame_s, 2),
        "age_ms": _percentiles(reading.age_s),
        "ms": {stage: _percentiles(latency) for stage, latency in reading.stages_s.items()},
    }


def _percentiles(distribution: Distribution) -> dict[str, float]:
    """``p50``, ``p95``, ``p99`` in milliseconds."""
    return {f"p{100 * quantile:.0f}": round(1e3 * value, 2) for quantile, value in distribution.quantiles.items()}
