"""How well objects are followed: tracks held against labelled ones, frame by frame.

In each frame, tracks and labelled objects are paired one to one, as well as they overlap, from an IoU of .5 on; lost
tracks, whose place is only expected, do not count. The words are those of MOT benchmarks (arXiv 1603.00831, section 4).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.boxes import iou_matrix
from edgekit.tracking import Track
from edgekit.tracking.assignment import best_pairs

MIN_IOU = 0.5

ONE_ID_SHARE = 0.5
"""A labelled track is followed when one id is on it in this share of its frames."""


@dataclass(frozen=True, kw_only=True)
class TrackMetrics:
    """Sums over one clip."""

    labelled: int
    """Labelled tracks."""

    found: int
    """Those on which there was a track in at least one frame."""

    followed: int
    """Those on which one and the same id was in ``ONE_ID_SHARE`` of their frames."""

    held_share: float
    """Share 0..1 of its frames in which the one id that was on a labelled track most often was on it, in the mean."""

    frame_recall: float
    """Share 0..1 of the labelled boxes on which there was a track."""

    frame_precision: float
    """Share 0..1 of the tracks' boxes that were on a labelled one; 1 without any."""

    switches: int
    """How often the id on a labelled track became another."""

    ids: int
    """Ids that were given out."""


class TrackMeter:
    """Adds up a clip frame by frame."""

    def __init__(self) -> None:
        self._frames: Counter[int] = Counter()
        self._on: dict[int, list[int]] = {}  # labelled track -> the ids on it, one a frame
        self._ids: set[int] = set()
        self._shown = 0

    def add(self, tracks: Sequence[Track], labels: NDArray[np.int64], boxes_xyxy: NDArray[np.float32]) -> None:
        """One frame: its tracks, and its labelled objects as numbers [N] of their tracks and boxes [N, 4]."""
        seen = [track for track in tracks if track.seen]
        self._ids.update(track.id for track in tracks)
        self._shown += len(seen)
        self._frames.update(labels.tolist())
        boxes = np.array([track.box_xyxy for track in seen], np.float32).reshape(-1, 4)
        overlaps = iou_matrix(boxes, np.asarray(boxes_xyxy, np.float32).reshape(-1, 4))
        overlaps[overlaps < MIN_IOU] = 0
        for row, column in best_pairs(overlaps):
            self._on.setdefault(int(labels[column]), []).append(seen[row].id)

    def result(self) -> TrackMetrics:
        """The metrics of what was added."""
        boxes, paired = sum(self._frames.values()), sum(map(len, self._on.values()))
        longest = {label: Counter(ids).most_common(1)[0][1] for label, ids in self._on.items()}
        shares = {label: longest.get(label, 0) / frames for label, frames in self._frames.items()}
        return TrackMetrics(
            labelled=len(self._frames),
            found=len(self._on),
            followed=sum(share >= ONE_ID_SHARE for share in shares.values()),
            held_share=float(np.mean(list(shares.values()))) if shares else 1.0,
            frame_recall=paired / boxes if boxes else 1.0,
            frame_precision=paired / self._shown if self._shown else 1.0,
            switches=sum(a != b for ids in self._on.values() for a, b in itertools.pairwise(ids)),
            ids=len(self._ids),
        )
