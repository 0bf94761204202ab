"""Tell systemd that the loop is alive: https://www.freedesktop.org/software/systemd/man/sd_notify.html.

A process may live while its camera gives nothing; so the watchdog is petted only for fresh frames, and systemd
restarts what has seen none for ``WatchdogSec``. Outside systemd all of this does nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping

FRESH_S = 10.0
"""A frame that is older when its detections are ready does not count."""


class Watchdog:
    """Speaks to the socket that systemd names.

    Args:
        environment: with ``NOTIFY_SOCKET`` and ``WATCHDOG_USEC``, where systemd waits for news.
        clock: seconds that never jump.
    """

    def __init__(
        self, environment: Mapping[str, str] = os.environ, clock: Callable[[], float] = time.monotonic
    ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address  # an abstract socket
        timeout_us = environment.get("WATCHDOG_USEC", "")
        # A third: one message may be late without a restart.
        self._interval_s = int(timeout_us) / 3e6 if timeout_us.isdecimal() else None
        self._clock = clock
        self._petted_s = float("-inf")

    def ready(self) -> None:
        """The first frame was processed: what depends on this service may start."""
        self._send("READY=1")

    def pet(self, *, age_s: float = 0.0) -> None:
        """A frame of this age was processed; cheap enough to be called for each."""
        now = self._clock()
        if self._interval_s is None or age_s > FRESH_S or now - self._petted_s < self._interval_s:
            return
        self._petted_s = now
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The loop has ended, and files are being completed."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # Nothing depends on it: without news systemd does what it does about a process that hangs.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.settimeout(0.1)
            connection.connect(self._address)
            connection.sendall(message.encode())
