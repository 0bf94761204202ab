"""Frames and results to write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgekit.cameras import Frame
from edgekit.detections import Detections
from edgekit.pipeline import FrameResult
from edgekit.spec import AnchorLevel, DetectorSpec
from edgekit.tracking import Event, EventKind

MakeFrame = Callable[..., Frame]
MakeResult = Callable[..., FrameResult]
MakeEvent = Callable[..., Event]


@pytest.fixture
def spec() -> DetectorSpec:
    """A detector of persons and cats with a 4x4 mask over 64x64 pixels."""
    level = AnchorLevel(rows=4, columns=4, sizes=((32.0, 32.0),))
    return DetectorSpec(
        model="tiny", classes=("person", "cat"), height=64, width=64, anchors=(level,), mask_grid=(4, 4)
    )


@pytest.fixture
def make_frame() -> MakeFrame:
    """Frame ``index`` of a light grey picture."""

    def make(
        index: int = 0, *, height: int = 48, width: int = 64, time_s: float | None = None, **more: object
    ) -> Frame:
        image = np.full((height, width, 3), 200, np.uint8)
        return Frame(image=image, index=index, time_s=index / 10 if time_s is None else time_s, source="test", **more)

    return make


@pytest.fixture
def make_event() -> MakeEvent:
    """Track ``track_id`` enters, in frame ``frame``."""

    def make(track_id: int = 1, *, kind: EventKind = "enter", frame: int = 0, **more: Any) -> Event:
        return Event(
            kind=kind, track_id=track_id, class_id=0, frame=frame, time_s=frame / 10, source="test", score=0.9,
            box_xyxy=(10.0, 12.0, 30.0, 40.0), **more,
        )  # fmt: skip

    return make


@pytest.fixture
def make_result() -> MakeResult:
    """A result with the given boxes; half the mask active."""

    def make(
        boxes: list[list[float]] | None = None, class_ids: list[int] | None = None, total_ms: float = 5.0, **more: Any
    ) -> FrameResult:
        boxes = [[10.0, 12.0, 30.0, 40.0]] if boxes is None else boxes
        mask = np.zeros((4, 4), np.bool_)
        mask[:, :2] = True
        detections = Detections(
            boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
            scores=np.linspace(0.9, 0.5, len(boxes)).astype(np.float32),
            class_ids=np.array(class_ids if class_ids is not None else [0] * len(boxes), np.int64),
        )
        timings = {"letterbox": 1.0, "mask": 1.0, "detector": 2.0, "decode": 1.0, "total": total_ms}
        return FrameResult(detections=detections, mask=mask, active_share=0.5, timings_ms=timings, **more)

    return make
