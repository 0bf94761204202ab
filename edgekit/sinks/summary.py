"""What is worth knowing after the last frame: rate, stages, active share and, where the truth is known, recall."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.boxes import iou_matrix
from edgekit.profiling.latency import summarise

if TYPE_CHECKING:
    from edgekit.cameras import Frame
    from edgekit.detections import Detections
    from edgekit.pipeline import FrameResult

MATCHING_IOU = 0.5
"""A detection finds an object when their boxes overlap this much (PASCAL VOC's rule)."""


KEPT_TIMINGS = 10_000
"""Percentiles are over the newest frames: a camera runs for months, and memory must not grow."""


class _Newest:
    """The newest numbers, in four bytes each: objects would be megabytes that a small board misses."""

    def __init__(self) -> None:
        self._ring = np.zeros(KEPT_TIMINGS, np.float32)
        self._count = 0

    def add(self, value: float) -> None:
        """In place of the oldest."""
        self._ring[self._count % KEPT_TIMINGS] = value
        self._count += 1

    def values(self) -> list[float]:
        """All that are kept, in any order."""
        kept: list[float] = self._ring[: min(self._count, KEPT_TIMINGS)].astype(float).tolist()
        return kept


class Summary:
    """Counts while frames go by; :meth:`lines` tells the result.

    Args:
        classes: the detector's; objects of classes that it lacks do not count against it.
    """

    def __init__(self, classes: tuple[str, ...]) -> None:
        self._classes = classes
        self._start_s = time.perf_counter()
        self._end_s = self._start_s
        self._stages_ms: dict[str, _Newest] = {}
        self._ages_ms = _Newest()
        self._active_sum = 0.0
        self.frames = 0
        self._truth_seen = False
        self.objects = 0
        self.found = 0

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Count one frame."""
        self._end_s = time.perf_counter()
        for stage, ms in result.timings_ms.items():
            self._stages_ms.setdefault(stage, _Newest()).add(ms)
        self._ages_ms.add(1e3 * frame.age_s)
        self._active_sum += result.active_share
        self.frames += 1
        if frame.truth_xyxy is None or frame.truth_classes is None:
            return
        self._truth_seen = True
        ids = np.array(
            [self._classes.index(name) if name in self._classes else -1 for name in frame.truth_classes], int
        )
        self.objects += int((ids >= 0).sum())
        self.found += count_found(frame.truth_xyxy[ids >= 0], ids[ids >= 0], result.detections)

    def close(self) -> None:
        """Nothing is held open."""

    def lines(self, *, dropped: int = 0, live: bool = False) -> list[str]:
        """The summary, one fact a line.

        Args:
            dropped: frames that a live source passed over.
            live: whether it matters how old frames were when their results were there.
        """
        if not self.frames:
            return ["no frame was processed"]
        passed_s = self._end_s - self._start_s
        first = f"{self.frames} frames in {passed_s:.1f} s, {self.frames / passed_s:.1f} fps"
        if dropped:
            first += f"; {dropped} older frames dropped to stay with the newest"
        lines = [first, f"active share {self._active_sum / self.frames:.3f} on average"]
        stages = {name: summarise(newest.values()) for name, newest in self._stages_ms.items()}
        lines.append(
            "ms p50/p95/p99: "
            + ", ".join(
                f"{name} {stage.p50_ms:.1f}/{stage.p95_ms:.1f}/{stage.p99_ms:.1f}" for name, stage in stages.items()
            )
        )
        if live:
            age = summarise(self._ages_ms.values())
            lines.append(f"age of frames, ms p50/p95/p99: {age.p50_ms:.1f}/{age.p95_ms:.1f}/{age.p99_ms:.1f}")
        if self._truth_seen:
            recall = f"{self.found / self.objects:.3f}" if self.objects else "unknown"
            lines.append(
                f"recall {recall}: {self.found} of {self.objects} objects found"
                f" (same class, boxes overlap by at least {MATCHING_IOU})"
            )
        return lines


def count_found(truth_xyxy: NDArray[np.float32], truth_ids: NDArray[np.int64], detections: Detections) -> int:
    """How many of the objects [N, 4] with class ids [N] the detections find; each detection finds one at most."""
    overlap = iou_matrix(detections.boxes_xyxy, truth_xyxy)  # [D, N]
    overlap[detections.class_ids[:, None] != truth_ids[None, :]] = 0
    found = 0
    for row in range(len(detections)):  # best score first
        if len(truth_xyxy) and overlap[row].max() >= MATCHING_IOU:
            overlap[:, int(overlap[row].argmax())] = 0
            found += 1
    return found
