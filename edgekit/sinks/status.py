"""One line on the terminal that keeps changing; nothing at all where there is no terminal."""

from __future__ import annotations

import shutil
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from edgekit.cameras import Frame
    from edgekit.pipeline import FrameResult

UPDATES_PER_S = 5
"""Faster cannot be read, and a slow terminal would slow the loop."""

CLEAR_LINE = "\r\x1b[K"


class StatusLine:
    """Frame, frames a second over the last second or so, milliseconds, active share, and what is seen."""

    def __init__(self, stream: TextIO, classes: tuple[str, ...]) -> None:
        self._stream, self._classes = stream, classes
        self._enabled = stream.isatty()
        self._times: deque[float] = deque(maxlen=30)
        self._shown_s = float("-inf")

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Redraw the line, if it is time to."""
        if not self._enabled:
            return
        now = time.monotonic()
        self._times.append(now)
        if now - self._shown_s < 1 / UPDATES_PER_S:
            return
        self._shown_s = now
        line = describe(frame, result, self._classes, fps=_rate(self._times))
        self._stream.write(CLEAR_LINE + line[: shutil.get_terminal_size().columns - 1])
        self._stream.flush()

    def close(self) -> None:
        """Clear the line."""
        if self._enabled:
            self._stream.write(CLEAR_LINE)
            self._stream.flush()


def describe(frame: Frame, result: FrameResult, classes: tuple[str, ...], *, fps: float | None) -> str:
    """The line, e.g. ``frame 41  14.9 fps  21.3 ms  active 18 %  person 2, cat 1``."""
    seen = Counter(classes[class_id] for class_id in result.detections.class_ids.tolist())
    names = ", ".join(f"{name} {count}" for name, count in seen.most_common()) or "nothing"
    rate = "" if fps is None else f"{fps:.1f} fps  "
    numbers = f"{rate}{result.timings_ms['total']:.1f} ms  active {100 * result.active_share:.0f} %"
    return f"frame {frame.index}  {numbers}  {names}"


def _rate(times: deque[float]) -> float | None:
    passed = times[-1] - times[0]
    return (len(times) - 1) / passed if passed > 0 else None
