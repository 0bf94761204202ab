"""Where detections go, one file a sink: JSON lines, an annotated video, a status line, a summary at the end."""

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
