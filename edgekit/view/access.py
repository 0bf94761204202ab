"""Who may read and write. Every refusal is one line of the log, not too often, and counted.

* ``Host`` must be an IP address of the kind we listen at, or a name of this machine: a page from elsewhere whose name
  was made to point here (DNS rebinding) asks for its own name.
* Requests that a browser makes for another site's page are refused, but for a link to the page itself. Writes must
  come from our own page (``Origin``), or from a program, which sends none.
* Off this machine a token is needed for everything but ``/healthz``: as ``Authorization: Bearer TOKEN``, or once as
  ``/?token=TOKEN``, which is answered with a cookie that scripts and other sites do not get.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import socket
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web

from edgekit.errors import UsageError
from edgekit.sinks.faults import Faults
from edgekit.view.address import Address, ip_address, is_loopback

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SHORTEST_TOKEN = 16
"""Characters; those that we make have 32 random bytes."""

TRIES, ALL_TRIES, TRIES_S = 10, 200, 60.0
"""Wrong tokens in this time from one address, and from all together, before the right one is not looked at either."""

MOST_ADDRESSES = 1024
COOKIE_S = 30 * 24 * 3600

LOGIN_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>edgekit</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<form method="get" action="/"><p><label>Token <input name="token" type="password" autofocus required></label>
<button>Open</button></p></form></html>
"""


class Access:
    """Decides about each request.

    Args:
        address: where we listen.
        token: needed for everything; None is for this machine alone.
        names: host names besides this machine's own by which we are known.

    Raises:
        UsageError: others could reach us without a token, or with one that is easy to guess.
    """

    def __init__(self, address: Address, *, token: str | None, names: tuple[str, ...], faults: Faults) -> None:
        if token is None and not address.is_local:
            raise UsageError(f"a page at {address} can be reached by others, so it needs a token")
        if token is not None and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable()):
            raise UsageError(f"the token must be at least {SHORTEST_TOKEN} printable ASCII characters")
        own = socket.gethostname().lower()
        self._names = {"localhost", own, f"{own.partition('.')[0]}.local", address.host.lower(), *map(str.lower, names)}
        self._local = address.is_local
        self._token = token
        self._cookie = None if token is None else hmac.new(token.encode(), b"edgekit page", hashlib.sha256).hexdigest()
        self._cookie_name = f"edgekit_{address.port}"  # cookies do not tell ports apart
        self._tries = _Tries()
        self._faults = faults

    def refuse(self, request: web.BaseRequest, reason: str, words: str, status: int = 403) -> web.Response:
        """Count a refusal and answer with it. Neither log nor answer repeats what may be a secret."""
        self._faults.report("view", reason, f"refused {request.remote}: {request.method} {request.path}: {words}")
        return web.Response(status=status, text=f"{words}\n")

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse, or go on."""
        if not self._is_our_name(request.headers.get("Host", "")):
            return self.refuse(request, "host", "unknown host name", 421)
        if request.path == "/healthz" and request.method in ("GET", "HEAD"):
            return await handler(request)
        site = request.headers.get("Sec-Fetch-Site", "none")
        is_link = (
            request.path == "/" and request.method == "GET" and request.headers.get("Sec-Fetch-Mode") == "navigate"
        )
        if site not in ("none", "same-origin") and not is_link:
            return self.refuse(request, "cross_site", "asked for by another site")
        if request.method not in ("GET", "HEAD") and not self._is_our_origin(request):
            return self.refuse(request, "origin", "comes from another site")
        if self._token is None:
            return await handler(request)
        return await self._with_token(request, handler)

    async def _with_token(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        assert self._token is not None
        assert self._cookie is not None
        if _same(request.cookies.get(self._cookie_name, ""), self._cookie):
            return await handler(request)
        given = _bearer(request)
        asked = request.query.get("token") if request.path == "/" else None
        offered = given if given is not None else asked
        if offered is None:
            if request.path == "/" and request.method == "GET":
                return web.Response(status=401, text=LOGIN_PAGE, content_type="text/html")
            return self.refuse(request, "no_token", "a token is needed", 401)
        if not self._tries.left(request.remote or ""):
            return self.refuse(request, "token_rate", "too many wrong tokens; wait a minute", 429)
        if not _same(offered, self._token):
            self._tries.failed(request.remote or "")
            return self.refuse(request, "token", "wrong token", 401)
        response = await handler(request)
        if given is None:
            response.set_cookie(
                self._cookie_name, self._cookie, max_age=COOKIE_S, path="/", httponly=True, samesite="Strict"
            )
        return response

    def _is_our_name(self, header: str) -> bool:
        try:
            parts = urlsplit(f"//{header}")
            host = parts.hostname or ""
            _ = parts.port
        except ValueError:
            return False
        if parts.path or parts.query or parts.fragment or parts.username is not None:
            return False
        if ip_address(host) is not None:
            return is_loopback(host) or not self._local
        return host.rstrip(".") in self._names

    def _is_our_origin(self, request: web.Request) -> bool:
        origin = request.headers.get("Origin")
        return origin is None or origin in (f"http://{request.headers['Host']}", f"https://{request.headers['Host']}")


class _Tries:
    """Wrong tokens of the last minute, by address."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._all: tuple[int, float] = (0, 0.0)

    def left(self, address: str) -> bool:
        now = time.monotonic()
        return _current(self._wrong.get(address), now)[0] < TRIES and _current(self._all, now)[0] < ALL_TRIES

    def failed(self, address: str) -> None:
        now = time.monotonic()
        count, since_s = _current(self._wrong.pop(address, None), now)
        self._wrong[address] = (count + 1, since_s)
        while len(self._wrong) > MOST_ADDRESSES:
            self._wrong.popitem(last=False)
        count, since_s = _current(self._all, now)
        self._all = (count + 1, since_s)


def _current(entry: tuple[int, float] | None, now: float) -> tuple[int, float]:
    return entry if entry is not None and now - entry[1] < TRIES_S else (0, now)


def make_token() -> str:
    """A token that nobody guesses."""
    return secrets.token_urlsafe(32)


def _bearer(request: web.Request) -> str | None:
    kind, _, value = request.headers.get("Authorization", "").partition(" ")
    return value.strip() if kind.lower() == "bearer" else None


def _same(given: str, expected: str) -> bool:
    """In a time that does not tell how much of it is right."""
    return hmac.compare_digest(given.encode(errors="surrogateescape"), expected.encode())
