"""How many may be connected, and for how long without a request: each connection costs memory and a descriptor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from aiohttp import web

from edgekit.sinks.faults import Faults
from edgekit.view.access import Handler

MOST = 64
"""A browser opens six."""

IDLE_S = 15.0
"""For a whole request to arrive: nobody holds a place by sending a byte now and then."""


class Connections:
    """Counts and ends connections of an aiohttp server."""

    def __init__(self, faults: Faults, *, most: int = MOST, idle_s: float = IDLE_S) -> None:
        self._faults, self._most, self._idle_s = faults, most, idle_s
        self._idle_since: dict[asyncio.BaseProtocol, float] = {}
        self._busy: set[asyncio.BaseProtocol] = set()

    def factory(self, server: web.Server) -> Callable[[], asyncio.BaseProtocol]:
        """What to give ``create_server``."""

        def make() -> asyncio.BaseProtocol:
            if len(server.connections) >= self._most:
                self._faults.report("view", "connections", f"refused a connection: there are {self._most} already")
                return _Refusal()
            protocol = server()
            self._idle_since[protocol] = time.monotonic()
            return protocol

        return make

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Note that a connection has a request."""
        protocol = request.protocol
        self._busy.add(protocol)
        try:
            return await handler(request)
        finally:
            self._busy.discard(protocol)
            self._idle_since[protocol] = time.monotonic()

    async def sweep(self, server: web.Server) -> None:
        """End what is idle for too long, for ever."""
        while True:
            await asyncio.sleep(min(1.0, self._idle_s / 4))
            now = time.monotonic()
            open_ones = set(server.connections)
            for protocol, since_s in list(self._idle_since.items()):
                if protocol in self._busy or now - since_s < self._idle_s:
                    continue
                del self._idle_since[protocol]
                if protocol in open_ones and (transport := getattr(protocol, "transport", None)) is not None:
                    transport.abort()


class _Refusal(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()
