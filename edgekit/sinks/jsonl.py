"""Detections as JSON lines (https://jsonlines.org): one object a frame, each line flushed as soon as it is known."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import StorageError
from edgekit.sinks.claim import claim, empty
from edgekit.sinks.event_json import detections_json, event_json, segments_json, track_json

if TYPE_CHECKING:
    from edgekit.cameras import Frame
    from edgekit.pipeline import FrameResult


def to_json(frame: Frame, result: FrameResult, classes: tuple[str, ...]) -> dict[str, Any]:
    """What is written for one frame.

    =============== ==========================================================================================
    ``frame``       index of the frame; a gap means that a live source went on meanwhile
    ``time``        seconds: since the Unix epoch for cameras, since the start for videos (``Frame.time_s``)
    ``source``      where the frame is from
    ``camera``      the camera's name, where the run gave it one
    ``detections``  best first: ``class``, ``score`` 0..1, ``box_xyxy`` in pixels of the source picture
    ``tracks``      where somebody follows: ``id``, ``class``, ``score``, ``box_xyxy``, ``age_s``, ``seen``
    ``events``      likewise: what happened to tracks (``edgekit.sinks.event_json``)
    ``active_share`` share 0..1 of the mask's cells that the detector looked at
    ``segments``    of a segmenter: class -> ``share`` 0..1 of the picture, and mean ``score`` 0..1, where it is seen
    ``tokens``      of a detection transformer: how many its encoder refined
    ``age_ms``      milliseconds from capture until the line was made
    ``ms``          stage -> wall time in milliseconds; ``total`` is all of them together
    =============== ==========================================================================================
    """
    camera = getattr(frame, "camera", None)
    document: dict[str, Any] = {
        "frame": frame.index,
        "time": round(frame.time_s, 4),
        "source": frame.source,
        **({"camera": camera} if camera else {}),
        "detections": detections_json(result.detections, classes),
    }
    if result.tracks is not None:
        document["tracks"] = [track_json(track, classes) for track in result.tracks]
        document["events"] = [event_json(event, classes) for event in result.events]
    return document | {
        "active_share": round(result.active_share, 4),
        **({} if result.segments is None else {"segments": segments_json(result.segments, classes)}),
        **({} if result.tokens is None else {"tokens": result.tokens}),
        "age_ms": round(frame.age_s * 1e3, 1),
        "ms": {stage: round(ms, 3) for stage, ms in result.timings_ms.items()},
    }


class JsonLines:
    """Writes :func:`to_json` of each frame to standard output or a file.

    Args:
        target: ``-`` for standard output, or the path of a file, which is begun anew.
        classes: names of the class ids.

    Raises:
        StorageError: the file cannot be opened, or another run writes to it.
    """

    def __init__(self, target: str, classes: tuple[str, ...]) -> None:
        self._classes = classes
        self._path = None if target == "-" else Path(target)
        self._file: int | None = None
        self._whole_bytes = 0
        if self._path is not None:
            self._file = claim(self._path, "the JSON lines")
            empty(self._file)

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
