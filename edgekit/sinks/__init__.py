"""Where detections go, one file a sink.

=================== ===============================================================================================
jsonl.py            JSON lines on standard output or in a file
video.py            an annotated video
mqtt.py             events, detections and status at a broker, found by Home Assistant
webhook.py          events as signed HTTP requests
live.py             the numbers of the run; metrics.py gives them to Prometheus, ``edgekit.view`` to a browser
status.py           one line on the terminal
summary.py          a few at the end
=================== ===============================================================================================

``queued.py`` gives any of them a thread and a bounded queue; those for the network have their own (``outbox.py``).
What goes wrong without ending the run is counted in ``faults.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from edgekit.cameras import Frame
    from edgekit.pipeline import FrameResult


class Sink(Protocol):
    """Takes every frame that was processed, in order."""

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Take one frame and what was found on it.

        Raises:
            StorageError: it cannot be stored.
            BrokenPipeError: it is for another program, which has gone.
        """
        ...

    def close(self) -> None:
        """Finish: after it, what was written is complete. Called once, also after an error or Ctrl-C.

        Raises:
            StorageError: what was written did not reach the disk.
        """
        ...
