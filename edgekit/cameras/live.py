"""Live sources: a thread reads all the time and keeps only the newest frame, so a slow detector never falls behind.

Without it frames queue up in the driver and every detection is older than the one before. The thread also brings the
source back after a loss, with growing pauses between attempts; frames may have another size afterwards.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekit.cameras import Frame, Source
from edgekit.errors import SourceError

log = logging.getLogger("edgekit")

LONGEST_PAUSE_S = 16.0
"""Pauses between attempts double up to this."""


@dataclass(frozen=True, kw_only=True)
class _Captured:
    image_bgr: NDArray[np.uint8]
    index: int
    time_s: float


class LiveSource(Source):
    """The newest frame of a camera or stream, each at most once.

    Args:
        open_capture: opens the source and returns a capture, or ``None`` when it is not there.
        name: what messages and ``Frame.source`` call it.
        capture: an open capture to start with.
        retries: attempts to reopen a lost source before giving up.
        first_pause_s: before the first attempt; doubles each time, up to :data:`LONGEST_PAUSE_S`.
    """

    live = True

    def __init__(
        self,
        open_capture: Callable[[], cv2.VideoCapture | None],
        *,
        name: str,
        capture: cv2.VideoCapture,
        retries: int = 6,
        first_pause_s: float = 0.5,
    ) -> None:
        fps = capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps <= 1000 else None  # streams without a rate say 0, or their clock's 90000
        self.name = name
        self._open_capture, self._retries, self._first_pause_s = open_capture, retries, first_pause_s
        self._newest: _Captured | None = None
        self._lost: SourceError | None = None
        self._changed = threading.Condition()
        self._stop = threading.Event()
        # A daemon: a driver that blocks in a read must not keep the process from ending.
        self._thread = threading.Thread(target=self._read, args=(capture,), name=f"reader of {name}", daemon=True)
        self._thread.start()

    def frames(self) -> Iterator[Frame]:
        """Newest frames; waits when there is none newer than the last one given."""
        while True:
            with self._changed:
                while self._newest is None and self._lost is None and not self._stop.is_set():
                    self._changed.wait(timeout=0.5)  # Ctrl-C is seen between waits on every platform
                captured, self._newest = self._newest, None
            if captured is None:
                if self._lost is not None:
                    raise self._lost
                return
            image = np.asarray(cv2.cvtColor(captured.image_bgr, cv2.COLOR_BGR2RGB), np.uint8)
            yield Frame(image=image, index=captured.index, time_s=captured.time_s, source=self.name)

    def close(self) -> None:
        """Stop the thread, which releases the device; waits at most two seconds for a driver that blocks."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(timeout=2.0)

    def _read(self, capture: cv2.VideoCapture | None) -> None:
        index = 0
        try:
            while capture is not None and not self._stop.is_set():
                ok, image = capture.read()
                if not ok:
                    capture.release()
                    capture = self._reopen()
                    continue
                with self._changed:
                    self.dropped += self._newest is not None
                    self._newest = _Captured(image_bgr=np.asarray(image, np.uint8), index=index, time_s=time.time())
                    self._changed.notify_all()
                index += 1
        finally:
            if capture is not None:
                capture.release()

    def _reopen(self) -> cv2.VideoCapture | None:
        pause_s = self._first_pause_s
        for attempt in range(1, self._retries + 1):
            log.warning("%s is lost; attempt %d of %d in %.1f s", self.name, attempt, self._retries, pause_s)
            if self._stop.wait(pause_s):
                return None
            capture = self._open_capture()
            if capture is not None:
                log.warning("%s is back", self.name)
                return capture
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        with self._changed:
            self._lost = SourceError(
                f"{self.name} was lost and did not come back in {self._retries} attempts.\n"
                "Likely cause: the cable, the power or the network of the camera.\n"
                "Check that it is there, then run the same command again."
            )
            self._changed.notify_all()
        return None
