"""Events as HTTP POST requests, one for each frame that has any, in order; urllib is enough for that.

The body::

    {"camera": "yard", "frame": 812, "time": 1790000000.2, "source": "camera 0",
     "events": [{"event": "enter", "track": 4, "class": "person", ...}], "snapshot_jpeg": "BASE64"}

============================ =======================================================================================
header                       value
============================ =======================================================================================
``X-Edgekit-Delivery``       the same each time a request is repeated, so that a receiver can tell
``X-Edgekit-Timestamp``      seconds since the Unix epoch, of this attempt
``X-Edgekit-Signature``      with a key: ``sha256=`` and the hexadecimal HMAC-SHA256 of timestamp, ``.`` and body
============================ =======================================================================================

Answers from 200 to 299 are good. 408, 425, 429, 500 and above and a connection that fails are tried again, with pauses
that double; every other answer is final. Redirections are not followed: they could lead events and signature to
another host.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import random
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from edgekit.errors import UsageError
from edgekit.sinks.camera_name import camera_name
from edgekit.sinks.event_json import event_json
from edgekit.sinks.faults import Faults
from edgekit.sinks.outbox import Counts, Outbox
from edgekit.sinks.secret import read_secret, without_secrets

if TYPE_CHECKING:
    from email.message import Message

    from edgekit.cameras import Frame
    from edgekit.pipeline import FrameResult

KEY_VARIABLE = "EDGEKIT_WEBHOOK_KEY"
KEPT_REQUESTS = 256
"""With pictures some 20 MB."""

TIMEOUT_S = 5.0
ATTEMPTS = 8
"""With the pauses below two minutes: longer outages are for a broker."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
CLOSING_S = 1.2
LARGEST_ANSWER = 64 * 1024
TRY_AGAIN = {408, 425, 429}


@dataclass(frozen=True, kw_only=True)
class _Request:
    body: bytes
    delivery: str


class _Connections(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Makes connections and remembers the one in use, so that a request that hangs can be ended."""

    def __init__(self, context: ssl.SSLContext) -> None:
        urllib.request.HTTPSHandler.__init__(self, context=context)
        self._context = context
        self._open: http.client.HTTPConnection | None = None

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._plain, req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._encrypted, req)

    def end(self) -> None:
        """End what is being sent or waited for."""
        channel = getattr(self._open, "sock", None)
        if channel is not None:
            with contextlib.suppress(OSError):
                channel.shutdown(socket.SHUT_RDWR)

    def _plain(self, host: str, **options: Any) -> http.client.HTTPConnection:
        self._open = http.client.HTTPConnection(host, **options)
        return self._open

    def _encrypted(self, host: str, **options: Any) -> http.client.HTTPConnection:
        self._open = http.client.HTTPSConnection(host, context=self._context, **options)
        return self._open


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        return None


class Webhook:
    """A sink with a thread of its own that sends; ``write`` never waits for it.

    Args:
        url: ``http://`` or ``https://``; ``USER:PASSWORD@`` becomes basic authentication.
        classes: names of the class ids.
        key: of the signature; the default is what ``EDGEKIT_WEBHOOK_KEY`` holds or the file that
            ``EDGEKIT_WEBHOOK_KEY_FILE`` names, if either is set.
        snapshot: makes the JPEG of a frame that has events (``edgekit.sinks.snapshot``); ``write`` calls it.
        kept: the most requests that wait; the oldest go first, since alarms are about now.
        ca_file: certificates that an ``https://`` server is checked with; None is the system's.

    Raises:
        UsageError: not such a URL. The message does not repeat it.
    """

    def __init__(
        self,
        url: str,
        classes: tuple[str, ...],
        *,
        key: str | None = None,
        snapshot: Callable[[Frame, FrameResult], bytes] | None = None,
        kept: int = KEPT_REQUESTS,
        timeout_s: float = TIMEOUT_S,
        first_pause_s: float = FIRST_PAUSE_S,
        ca_file: Path | None = None,
        faults: Faults | None = None,
    ) -> None:
        self._url, self._authorization = _parse(url)
        self._shown = without_secrets(url)
        self._classes, self._snapshot = classes, snapshot
        self._key = key or read_secret(KEY_VARIABLE)
        self._run_id, self._deliveries = uuid.uuid4().hex, 0  # random numbers for each would be a system call each
        self._timeout_s, self._first_pause_s = timeout_s, first_pause_s
        self._faults = faults or Faults()
        self._outbox: Outbox[_Request] = Outbox(kept)
        self._connections = _Connections(ssl.create_default_context(cafile=ca_file))
        self._opener = urllib.request.build_opener(_NoRedirection, self._connections)
        self._thread = threading.Thread(target=self._run, name="sink webhook", daemon=True)
        self._thread.start()

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Queue a request if the frame has events."""
        if not result.events:
            return
        document: dict[str, Any] = {
            "camera": camera_name(frame),
            "frame": frame.index,
            "time": round(frame.time_s, 4),
            "source": frame.source,
            "events": [event_json(event, self._classes) for event in result.events],
        }
        if self._snapshot is not None:
            document["snapshot_jpeg"] = base64.b64encode(self._snapshot(frame, result)).decode()
        self._deliveries += 1
        body = json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
        self._outbox.offer(_Request(body=body, delivery=f"{self._run_id}-{self._deliveries}"))

    def counts(self) -> Counts:
        """What became of the requests so far."""
        return self._outbox.counts()

    def close(self) -> None:
        """Send what waits, within 1.2 s. What is left is dropped and counted."""
        before = self._outbox.counts().dropped
        self._outbox.close()
        self._outbox.wait_until_empty(CLOSING_S)
        self._outbox.drop_all()
        self._connections.end()
        self._thread.join(0.1)
        after = self._outbox.counts()
        if left := after.dropped - before + after.waiting:
            self._faults.report("webhook", "left", f"{left} requests were not delivered to {self._shown}")

    def _run(self) -> None:
        while True:
            request = self._outbox.take(timeout_s=60.0)
            if request is not None:
                self._deliver(request)
            elif self._outbox.closed:
                return

    def _deliver(self, request: _Request) -> None:
        """Send one request, again and again if need be."""
        pause_s = self._first_pause_s
        for attempt in range(1, ATTEMPTS + 1):
            problem = self._attempt(request)
            if problem is None:
                self._outbox.written()
                return
            reason, words, wait_s = problem
            self._faults.report("webhook", reason, f"{self._shown} {words}")
            if wait_s is None or attempt == ATTEMPTS:
                self._outbox.failed()
                return
            if self._outbox.closed:
                self._outbox.put_back([request])
                self._outbox.drop_all()  # one more attempt is all that closing has time for
                return
            self._outbox.rest(max(wait_s, pause_s * random.uniform(0.5, 1.0)))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _attempt(self, request: _Request) -> tuple[str, str, float | None] | None:
        """None if the receiver took it; otherwise reason, words, and the least pause before the next attempt if any."""
        try:
            with self._opener.open(self._signed(request), timeout=self._timeout_s) as answer:
                answer.read(LARGEST_ANSWER)
            return None
        except urllib.error.HTTPError as error:
            with error:
                again = error.code in TRY_AGAIN or error.code >= 500
                what = "answered with a redirection, which is not followed" if 300 <= error.code < 400 else "answered"
                return f"status {error.code // 100}xx", f"{what}: {error.code}", _wait_s(error) if again else None
        except ssl.SSLError as error:
            return "tls", f"cannot be trusted: {error.reason}", 0.0
        except (OSError, http.client.HTTPException, ValueError) as error:
            cause = getattr(error, "reason", error)
            tls = isinstance(cause, ssl.SSLError)
            words = getattr(cause, "strerror", None) or type(cause).__name__
            return "tls" if tls else "unreachable", f"cannot be reached: {words}", 0.0

    def _signed(self, request: _Request) -> urllib.request.Request:
        timestamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "edgekit",
            "X-Edgekit-Delivery": request.delivery,
            "X-Edgekit-Timestamp": timestamp,
        }
        if self._authorization is not None:
            headers["Authorization"] = self._authorization
        if self._key is not None:
            headers["X-Edgekit-Signature"] = signature(self._key, timestamp, request.body)
        return urllib.request.Request(self._url, data=request.body, headers=headers, method="POST")


def signature(key: str, timestamp: str, body: bytes) -> str:
    """The header ``X-Edgekit-Signature``; receivers compute it too and compare in constant time."""
    return "sha256=" + hmac.new(key.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()


def _wait_s(error: urllib.error.HTTPError) -> float:
    """Seconds that the receiver asks for, within reason."""
    asked = error.headers.get("Retry-After", "")
    return min(float(asked), LONGEST_PAUSE_S) if asked.isascii() and asked.isdigit() else 0.0


def _parse(url: str) -> tuple[str, str | None]:
    """The URL without user and password, and the header ``Authorization`` if it had them."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError("the webhook's address cannot be read; expected https://HOST/PATH") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isascii() or not url.isprintable():
        raise UsageError("the webhook's address is not understood; expected https://HOST/PATH or http://HOST/PATH")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    bare = urlunsplit((parts.scheme, host if port is None else f"{host}:{port}", parts.path or "/", parts.query, ""))
    if parts.username is None:
        return bare, None
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return bare, "Basic " + base64.b64encode(pair.encode()).decode()
