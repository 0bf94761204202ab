"""The server of page, metrics and health: a thread with its own event loop, and the sink that feeds it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from aiohttp import web

from edgekit.cameras import Frame
from edgekit.errors import UsageError
from edgekit.pipeline import FrameResult
from edgekit.sinks.faults import Faults
from edgekit.sinks.live import LiveNumbers
from edgekit.sinks.metrics import Metrics
from edgekit.sinks.secret import read_secret
from edgekit.tracking.zones import MAX_BYTES
from edgekit.view.access import Access, make_token
from edgekit.view.address import Address
from edgekit.view.connections import IDLE_S, MOST, Connections
from edgekit.view.pictures import Encode, Pictures
from edgekit.view.routes import Routes, ZonesFiles, add_headers

log = logging.getLogger("edgekit")

TOKEN_VARIABLE = "EDGEKIT_VIEW_TOKEN"
CLOSING_S = 1.0


class Server:
    """A sink whose ``write`` costs next to nothing, and a web server.

    Args:
        address: where to listen; port 0 is any that is free.
        numbers: of the run.
        encode: makes the page's pictures; None serves no page, only health and, if given, metrics.
        metrics: what ``/metrics`` answers; None has no such path.
        zones: where the page's editor keeps zones.
        token: needed for everything but ``/healthz``. The default is what ``EDGEKIT_VIEW_TOKEN`` holds, or the file
            that ``EDGEKIT_VIEW_TOKEN_FILE`` names; without either one is made, and logged once, if others can reach us.
        names: host names by which we are known, besides this machine's own.
        stale_s: ``/healthz`` is good while each camera had a frame in this time.

    Raises:
        UsageError: the address cannot be listened at, e.g. because the port is in use; or a token that is too short.
    """

    def __init__(
        self,
        address: Address,
        numbers: LiveNumbers,
        *,
        encode: Encode | None = None,
        metrics: Metrics | None = None,
        zones: ZonesFiles = None,
        token: str | None = None,
        names: Sequence[str] = (),
        stale_s: float = 10.0,
        most_connections: int = MOST,
        idle_s: float = IDLE_S,
    ) -> None:
        token = token or read_secret(TOKEN_VARIABLE)
        made = token is None and not address.is_local
        token = make_token() if made else token
        self._numbers, self._faults = numbers, numbers.faults
        self._pictures = None if encode is None else Pictures(encode, self._encoding_failed)
        self._socket = _listen(address)
        self.address = replace(address, port=self._socket.getsockname()[1])
        try:
            access = Access(self.address, token=token, names=tuple(names), faults=self._faults)
            connections = Connections(self._faults, most=most_connections, idle_s=idle_s)
            routes = Routes(numbers, access, pictures=self._pictures, metrics=metrics, zones=zones, stale_s=stale_s)
        except BaseException:
            self._socket.close()
            raise
        self._app = web.Application(
            middlewares=[connections.middleware, access.middleware, self._count_refusals],
            client_max_size=MAX_BYTES,
        )
        self._app.on_response_prepare.append(add_headers)
        routes.add_to(self._app)
        self._access, self._connections = access, connections
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(_workers())
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="view", daemon=True)
        self._thread.start()
        self._ready.wait(10)
        what = "page" if encode is not None else "metrics" if metrics is not None else "health"
        log.info("the %s is at %s", what, self.url + (f"?token={token}" if made else ""))

    @property
    def url(self) -> str:
        """Of the page, without the token."""
        host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(self.address.host, self.address.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.address.port}/"

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Note the newest frame of a camera."""
        if self._pictures is not None:
            self._pictures.publish(frame, result)

    def close(self) -> None:
        """Let everybody go, and end within a second or so."""
        with contextlib.suppress(RuntimeError):  # it has ended already
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(2 * CLOSING_S)

    def _encoding_failed(self, error: Exception) -> None:
        self._faults.report("view", "picture", f"a picture could not be made: {type(error).__name__}: {error}")

    @web.middleware
    async def _count_refusals(self, request: web.Request, handler: object) -> web.StreamResponse:
        """Paths and methods that there are none of; whoever comes here may read."""
        try:
            return await handler(request)  # type: ignore[operator, no-any-return]
        except web.HTTPNotFound:
            return self._access.refuse(request, "not_found", "there is nothing here", 404)
        except web.HTTPMethodNotAllowed as error:
            response = self._access.refuse(request, "method", "not like this", 405)
            response.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
            return response

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except Exception as error:
            self._faults.report("view", "unexpected", f"the server ended: {type(error).__name__}: {error}")
        finally:
            self._ready.set()
            self._loop.close()
            self._socket.close()

    async def _serve(self) -> None:
        runner = web.AppRunner(
            self._app,
            access_log=None,
            logger=_http_logger(self._faults),
            keepalive_timeout=IDLE_S,
            lingering_time=2.0,
            auto_decompress=False,
            shutdown_timeout=0.2,
            handler_cancellation=True,  # a reader who goes away gives its place back at once
        )
        await runner.setup()
        assert runner.server is not None
        listener = await self._loop.create_server(self._connections.factory(runner.server), sock=self._socket)
        chores = [
            self._loop.create_task(self._connections.sweep(runner.server)),
            self._loop.create_task(self._tick()),
        ]
        self._ready.set()
        await self._stop.wait()
        self._loop.remove_reader(self._socket.fileno())
        await asyncio.sleep(0.01)  # a connection that is just being accepted trips over a listener that was closed
        listener.close()
        transports = [protocol.transport for protocol in runner.server.connections]
        for chore in chores:
            chore.cancel()
        await asyncio.wait([self._loop.create_task(runner.cleanup()), *chores], timeout=CLOSING_S)
        if self._pictures is not None:
            self._pictures.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest, timeout=0.2)
        for transport in transports:
            if transport is not None:
                transport.abort()  # closing would wait for readers who take nothing
        await self._loop.shutdown_asyncgens()
        await asyncio.sleep(0)

    async def _tick(self) -> None:
        while True:
            await asyncio.to_thread(self._numbers.tick)
            await asyncio.sleep(1.0)


def _listen(address: Address) -> socket.socket:
    """An open port, so that what is wrong with it is said before the run begins."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family, backlog=MOST)
    except (OSError, OverflowError) as error:
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise UsageError(
                f"port {address.port} of {address.host} is in use, maybe by another run.\n"
                f"Choose another one, or 0 for any that is free: --view {replace(address, port=0)}"
            ) from error
        raise UsageError(f"{address} cannot be listened at: {getattr(error, 'strerror', None) or error}") from error


def _http_logger(faults: Faults) -> logging.Logger:
    """aiohttp's complaints as faults: they are about what others send, and would be a page of traceback each."""
    logger = logging.Logger("edgekit.view.http")
    logger.addHandler(_FaultHandler(faults))
    return logger


class _FaultHandler(logging.Handler):
    def __init__(self, faults: Faults) -> None:
        super().__init__()
        self._faults = faults

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if record.getMessage().startswith("Error handling request") and not _is_ours(error):
            self._faults.report("view", "bad_request", f"refused {_first(record.args)}: {type(error).__name__}")
        elif record.levelno >= logging.WARNING:
            self._faults.report("view", "unexpected", f"{record.getMessage()}: {type(error).__name__}: {error}")


def _first(values: object) -> object:
    return values[0] if isinstance(values, tuple) and values else "somebody"


def _is_ours(error: BaseException | None) -> bool:
    """Whether an exception comes from a handler rather than from what was sent."""
    return error is not None and not type(error).__module__.startswith("aiohttp.")


def _workers() -> ThreadPoolExecutor:
    """Two threads for what may block, disks above all, both there from the start.

    asyncio's own executor begins further ones whenever answers coincide, and a run of a year is to have as many threads
    on its last day as on its first.
    """
    workers = ThreadPoolExecutor(2, thread_name_prefix="view work")
    both = threading.Barrier(2)
    for _ in range(2):
        workers.submit(both.wait)
    return workers
