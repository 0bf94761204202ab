"""The summary after a run, recall in particular."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgekit.detections import Detections
from edgekit.sinks.summary import Summary, count_found

if TYPE_CHECKING:
    from conftest import MakeFrame, MakeResult

A, B = [0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0]
A_NARROW = [0.0, 0.0, 5.0, 10.0]  # overlaps A by exactly one half
A_TOO_NARROW = [0.0, 0.0, 4.9, 10.0]


@pytest.mark.parametrize(
    ("truth", "truth_ids", "boxes", "ids", "found"),
    [
        ([A, B], [0, 1], [A, B], [0, 1], 2),
        ([A, B], [0, 1], [A, B], [1, 0], 0),
        ([A], [0], [A_NARROW], [0], 1),
        ([A], [0], [A_TOO_NARROW], [0], 0),
        ([A, A], [0, 0], [A], [0], 1),  # one detection finds one object
        ([A], [0], [A, A_NARROW], [0, 0], 1),  # one object is found once
        ([], [], [A], [0], 0),
        ([A], [0], [], [], 0),
    ],
)
def test_count_found(
    truth: list[list[float]], truth_ids: list[int], boxes: list[list[float]], ids: list[int], found: int
) -> None:
    detections = Detections(
        boxes_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.linspace(0.9, 0.8, len(boxes)).astype(np.float32),
        class_ids=np.array(ids, np.int64),
    )
    assert count_found(np.array(truth, np.float32).reshape(-1, 4), np.array(truth_ids, int), detections) == found


def test_lines(make_frame: MakeFrame, make_result: MakeResult) -> None:
    summary = Summary(("person", "cat"))
    truth = {"truth_xyxy": np.array([A, B, B], np.float32), "truth_classes": ("person", "cat", "horse")}
    for index in range(10):
        summary.write(make_frame(index, **truth), make_result([A], total_ms=2.0 * index))
    lines = summary.lines(dropped=4)
    assert lines[0].startswith("10 frames in ")
    assert lines[0].endswith("; 4 older frames dropped to stay with the newest")
    assert lines[1] == "active share 0.500 on average"
    assert lines[2] == (
        "ms p50/p95/p99: letterbox 1.0/1.0/1.0, mask 1.0/1.0/1.0, detector 2.0/2.0/2.0, decode 1.0/1.0/1.0,"
        " total 9.0/17.1/17.8"
    )
    assert lines[3] == "recall 0.500: 10 of 20 objects found (same class, boxes overlap by at least 0.5)"


def test_how_old_a_camera_s_frames_were(make_frame: MakeFrame, make_result: MakeResult) -> None:
    summary = Summary(("person",))
    for index in range(100):
        summary.write(make_frame(index, captured_s=time.monotonic() - (0.5 if index else 9.0)), make_result())
    (line,) = set(summary.lines(live=True)) - set(summary.lines())
    assert re.fullmatch(r"age of frames, ms p50/p95/p99: 50\d\.\d/50\d\.\d/\d+\.\d", line)


def test_without_truth_there_is_no_recall(make_frame: MakeFrame, make_result: MakeResult) -> None:
    summary = Summary(("person",))
    summary.write(make_frame(), make_result())
    assert not any("recall" in line for line in summary.lines())


def test_without_objects_recall_is_unknown(make_frame: MakeFrame, make_result: MakeResult) -> None:
    summary = Summary(("person",))
    summary.write(make_frame(truth_xyxy=np.zeros((0, 4), np.float32), truth_classes=()), make_result())
    assert summary.lines()[-1].startswith("recall unknown: 0 of 0")


def test_without_frames() -> None:
    assert Summary(()).lines() == ["no frame was processed"]
