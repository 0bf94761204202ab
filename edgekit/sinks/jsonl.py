"""Detections as JSON lines (https://jsonlines.org): one object a frame, each line flushed as soon as it is known."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import StorageError

if TYPE_CHECKING:
    from edgekit.cameras import Frame
    from edgekit.pipeline import FrameResult


def to_json(frame: Frame, result: FrameResult, classes: tuple[str, ...]) -> dict[str, Any]:
    """What is written for one frame.

    =============== ==========================================================================================
    ``frame``       index of the frame; a gap means that a live source went on meanwhile
    ``time``        seconds: since the Unix epoch for cameras, since the start for videos (``Frame.time_s``)
    ``source``      where the frame is from
    ``detections``  best first: ``class``, ``score`` 0..1, ``box_xyxy`` in pixels of the source picture
    ``active_share`` share 0..1 of the mask's cells that the detector looked at
    ``ms``          stage -> wall time in milliseconds; ``total`` is all of them together
    =============== ==========================================================================================
    """
    found = result.detections
    return {
        "frame": frame.index,
        "time": round(frame.time_s, 4),
        "source": frame.source,
        "detections": [
            {
                "class": classes[class_id],
                "score": round(score, 4),
                "box_xyxy": [round(edge, 2) for edge in box],
            }
            for class_id, score, box in zip(
                found.class_ids.tolist(), found.scores.tolist(), found.boxes_xyxy.tolist(), strict=True
            )
        ],
        "active_share": round(result.active_share, 4),
        "ms": {stage: round(ms, 3) for stage, ms in result.timings_ms.items()},
    }


class JsonLines:
    """Writes :func:`to_json` of each frame to standard output or a file.

    Args:
        target: ``-`` for standard output, or the path of a file, which is begun anew.
        classes: names of the class ids.

    Raises:
        StorageError: the file cannot be opened.
    """

    def __init__(self, target: str, classes: tuple[str, ...]) -> None:
        self._classes = classes
        self._path = None if target == "-" else Path(target)
        self._file: int | None = None
        self._whole_bytes = 0
        if self._path is not None:
            try:
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            except OSError as error:
                raise StorageError(f"the JSON lines cannot be written to {self._path}: {error.strerror}.") from error

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Write one line; a file never keeps half a line."""
        line = json.dumps(to_json(frame, result, self._classes), ensure_ascii=False, allow_nan=False) + "\n"
        if self._file is None:
            sys.stdout.write(line)
            sys.stdout.flush()
        else:
            self._append(self._file, line.encode())

    def close(self) -> None:
        """Close the file; standard output stays open."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _append(self, file: int, line: bytes) -> None:
        rest = line
        try:
            while rest:
                rest = rest[os.write(file, rest) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            with contextlib.suppress(OSError):  # a device or pipe cannot be shortened
                os.ftruncate(file, self._whole_bytes)
            raise StorageError(
                f"writing to {self._path} failed: {error.strerror}. The lines before are whole.\n"
                "Make room, or write elsewhere with --jsonl FILE."
            ) from error
        self._whole_bytes += len(line)
