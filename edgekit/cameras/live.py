"""Live sources: a thread reads all the time and keeps only the newest frame, so a slow detector never falls behind.

Without it frames queue up in the driver and every detection is older than the one before. The thread also brings the
source back after a loss, with jittered pauses that grow; frames may have another size afterwards.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgekit.cameras import Counters, Frame, Source
from edgekit.errors import SourceError

log = logging.getLogger("edgekit")

Picture = NDArray[np.uint8]

FIRST_PAUSE_S = 0.1
"""Before the first attempt: most losses are a hiccup. Pauses double from here."""

LONGEST_PAUSE_S = 4.0
"""Pauses grow up to this; network streams have a shorter one (``edgekit.cameras.stream``)."""

STEADY_S = 5.0
"""A source must have run for so long for its next loss to begin with a short pause again: one that gives a frame and
dies is not to be opened ten times a second."""


class Capture(Protocol):
    """A source that is open: what :class:`LiveSource` reads in its thread."""

    fps: float | None
    """Frames a second as the source states them; ``None`` when it does not."""

    def read(self) -> Picture | None:
        """Wait for the next picture, in the source's own layout; ``None`` when there is none: the source is lost."""
        ...

    def to_rgb(self, picture: Picture) -> Picture:
        """[h, w, 3] RGB of what :meth:`read` gave. Apart from it, since most pictures are never asked for."""
        ...

    def release(self) -> None:
        """Give the device, connection or process back."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Captured:
    picture: Picture
    to_rgb: Callable[[Picture], Picture]
    time_s: float
    captured_s: float
    index: int = -1


class LiveSource(Source):
    """The newest frame of a camera or stream, each at most once.

    A decoder whose input is cut off often completes its last picture from the one before it, and only then says that
    the source is lost. So a picture counts as captured once the next read has lasted ``settle_s``, or has given another
    picture; one that the loss follows at once is never passed on.

    Args:
        open_capture: opens the source, or raises :class:`SourceError` with what to tell the user.
        name: what messages and ``Frame.source`` call it.
        retries: attempts to open it, at the start and after each loss, before giving up; ``math.inf`` is for ever.
            ``None``: it must be there at the start, since a wrong name is likelier than a slow camera while somebody
            watches; once it was there it is tried for ever.
        max_age_s: frames older than this when they are asked for are dropped.
        settle_s: see above; 0 where only whole pictures can come.
        longest_pause_s: between attempts.
        may_come_back: whether there is any sense in opening it again; otherwise its end is the end of the frames.

    Raises:
        SourceError: it cannot be opened, and ``retries`` is ``None`` or 0.
    """

    live = True
    endless = True

    def __init__(
        self,
        open_capture: Callable[[], Capture],
        *,
        name: str,
        retries: float | None = None,
        max_age_s: float | None = None,
        settle_s: float = 0.0,
        longest_pause_s: float = LONGEST_PAUSE_S,
        may_come_back: bool = True,
    ) -> None:
        self.name = name
        self._open_capture, self._retries, self._may_come_back = open_capture, retries, may_come_back
        self._max_age_s = math.inf if max_age_s is None else max_age_s
        self._settle_s, self._longest_pause_s = settle_s, longest_pause_s
        self._pending: _Captured | None = None  # not known to be whole
        self._newest: _Captured | None = None
        self._counts: Counter[str] = Counter()
        self._pause_s = FIRST_PAUSE_S
        self._failed: Exception | None = None
        self._changed = threading.Condition()
        self._stop = threading.Event()
        capture: Capture | None = None
        reason = ""
        try:
            capture = open_capture()
            self.fps = capture.fps
        except SourceError as error:
            if not retries:
                raise
            reason = str(error)
        # A daemon: a driver that blocks in a read must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, args=(capture, reason), name=f"reader of {name}", daemon=True)
        self._thread.start()

    def counters(self) -> Counters:
        """What became of the frames so far: ``captured`` is the sum of the others but ``outages``, at any moment."""
        with self._changed:
            return Counters(**self._counts, waiting=int(self._newest is not None))

    def frames(self) -> Iterator[Frame]:
        """Newest frames; waits when there is none newer than the last one given."""
        while (captured := self._take()) is not None:
            yield Frame(
                image=captured.to_rgb(captured.picture),
                index=captured.index,
                time_s=captured.time_s,
                source=self.name,
                captured_s=captured.captured_s,
            )

    def close(self) -> None:
        """Stop the thread, which releases the device; waits at most a second for a driver that blocks."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(timeout=1.0)

    def _take(self) -> _Captured | None:
        """Wait for the frame to give; ``None`` at the end."""
        asked_s = time.monotonic()
        with self._changed:
            while True:
                now = time.monotonic()
                wait_s = 0.5  # Ctrl-C is seen between waits on every platform
                if self._pending is not None:
                    wait_s = self._pending.captured_s + self._settle_s - now
                    if wait_s <= 0:
                        self._confirm()
                # A frame from before the question gives way to the one that is about to settle.
                if self._newest is not None and (
                    self._pending is None or self._newest.captured_s >= asked_s - self._settle_s
                ):
                    captured, self._newest = self._newest, None
                    if now - captured.captured_s <= self._max_age_s:
                        self._counts["delivered"] += 1
                        return captured
                    self._counts["dropped_stale"] += 1
                elif self._newest is None and self._failed is not None:
                    raise self._failed
                elif self._newest is None and self._pending is None and self._stop.is_set():
                    return None
                else:
                    self._changed.wait(timeout=max(wait_s, 0.001))

    def _confirm(self) -> None:
        """The pending picture is a frame; under the lock."""
        if self._pending is not None:
            if self._newest is not None:
                self._counts["dropped_newer"] += 1
            self._newest = replace(self._pending, index=self._counts["captured"])
            self._pending = None
            self._counts["captured"] += 1

    def _run(self, capture: Capture | None, reason: str) -> None:
        try:
            while not self._stop.is_set():
                if capture is None:
                    capture = self._reopen(reason)
                    continue
                steady = self._read(capture)
                capture.release()
                capture, reason = None, ""
                if self._stop.is_set() or not self._may_come_back:
                    break
                with self._changed:
                    self._counts["outages"] += 1
                if steady:
                    self._pause_s = FIRST_PAUSE_S
        except Exception as error:  # whatever it is, the one who waits for a frame must hear of it
            with self._changed:
                self._failed = error
        finally:
            if capture is not None:
                capture.release()
            self._stop.set()
            with self._changed:
                self._changed.notify_all()

    def _read(self, capture: Capture) -> bool:
        """Read until the source is lost or closed; returns whether it had run for a while."""
        start_s = time.monotonic()
        while not self._stop.is_set():
            picture = capture.read()
            with self._changed:
                if picture is None:
                    if not self._may_come_back:
                        self._confirm()
                    self._pending = None
                    break
                self._confirm()
                self._pending = _Captured(
                    picture=picture, to_rgb=capture.to_rgb, time_s=time.time(), captured_s=time.monotonic()
                )
                if self._settle_s == 0:
                    self._confirm()
                self._changed.notify_all()
        return time.monotonic() - start_s >= STEADY_S

    def _reopen(self, reason: str) -> Capture | None:
        """The capture once it is back; ``None`` when closed meanwhile.

        Raises:
            SourceError: the last attempt failed.
        """
        retries = math.inf if self._retries is None else self._retries
        lost_s = time.monotonic()
        was_there = not reason
        state = "lost" if was_there else "not there yet"
        attempt = 0
        while attempt < retries:
            attempt += 1
            why = f" ({reason.splitlines()[0].rstrip('.')})" if reason else ""
            self.problem = f"{self.name} is {state}{why}"
            # Jitter: many cameras behind one switch must not all come back to it in the same moment.
            pause_s = self._pause_s * random.uniform(0.5, 1.0)
            self._pause_s = min(2 * self._pause_s, self._longest_pause_s)
            if attempt & (attempt - 1) == 0:  # 1, 2, 4, 8, ...: a camera may be gone for a year
                of = f" of {retries:.0f}" if math.isfinite(retries) else ""
                log.warning("%s; attempt %d%s in %.1f s", self.problem, attempt, of, pause_s)
            if self._stop.wait(pause_s):
                return None
            try:
                capture = self._open_capture()
            except SourceError as error:
                reason = str(error)
                continue
            self.problem = None
            log.warning("%s is %s after %.1f s", self.name, "back" if was_there else "there", time.monotonic() - lost_s)
            self.fps = self.fps or capture.fps
            return capture
        if attempt == 0:
            failure = "was lost, and no retries were asked for"
        else:
            failure = f"{'was lost and did not come back' if was_there else 'did not appear'} in {attempt} attempts"
        hint = f"The last one: {reason}" if reason else "Check its cable, power and network, then run this again."
        raise SourceError(f"{self.name} {failure}.\n{hint}")
