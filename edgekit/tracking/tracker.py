"""Follow objects from frame to frame: ByteTrack (arXiv 2110.06864).

Each frame, tracks are moved on to where they are expected (``motion_model``) and assigned to detections by overlap
(IoU), optimally (``assignment``), in two rounds (section 3, algorithm 1 of the paper): first the detections that are
sure enough to be reported, with all tracks, lost ones included; then the unsure ones, with tracks that were there a
moment ago. So someone who walks behind a pole is not lost while the detector has doubts, and doubts found nothing new.
Overlaps are those of boxes that are grown a little (``BUFFER``), for cameras with few frames a second.

Why not a library. On a board with 1 GB, as installed for Python 3.11 on x86-64: ``trackers`` 2.6 is well kept and knows
time stamps, but needs ``supervision``, which brings scipy, matplotlib and PyAV, 430 MB in all (edgekit with numpy,
Pillow and click takes 110 MB), 70 MB more of memory and .8 s to import, and OpenCV's desktop build, which hides the
headless one or the board's own. ``supervision`` itself no longer has a tracker. ``norfair`` needs filterpy, scipy and
numpy below 2. ``motpy`` needs scipy and matplotlib. ``lap`` is small, but only assigns, and is one more compiled wheel
that a board may lack. None of them says where a lost object is expected, which masks need. What is left to write are
three short files, which tests hold against scipy and the filter of textbooks. On a fixed camera (pets09) with the
shipped detector, ids on persons change 123 times with this one, and 237 to 268 times with ByteTrack of ``trackers``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekit.boxes import iou_matrix
from edgekit.detections import Detections
from edgekit.tracking import Track
from edgekit.tracking.assignment import best_pairs
from edgekit.tracking.motion_model import Box, Motion

UNSURE = 0.4
"""Of the score from which detections are reported: from there on they keep a track alive."""

BUFFER = 0.3
"""Of its sides by which a box grows on each side before overlaps are measured (C-BIoU, arXiv 2211.14317): slow engines
leave frames out, and small objects then move by more than their width. On pets09, 19 persons get 62 ids with it and 83
without; of every fourth frame alone 53 and 65, with tracks on a fifth more of the boxes."""

MIN_IOU = 0.2
"""Overlap with the expected box that makes a sure detection a candidate (the paper's code: 1 - 0.8)."""

MIN_IOU_UNSURE = 0.5
"""The same for an unsure one (the paper's code: 0.5)."""

MIN_IOU_NEW = 0.3
"""The same for a track that is not confirmed yet (the paper's code: 1 - 0.7)."""

CONFIRMED = 2
"""Frames in a row in which something must be seen before it is a track."""

LOST_S = 2.0
"""Seconds for which a track that nobody sees is kept (the paper: 30 frames)."""

FEW_PAIRS = 256
"""Pairs of a track and a detection up to which plain numbers are quicker than numpy, whose calls take longer than what
they compute; crowds have more."""

USUAL_STEP_S = 0.04
"""The step where time stands still or runs backwards and there was none before."""


class Tracker:
    """Follows the objects of one camera; make another one for another stream."""

    def __init__(
        self, *, score: float, least_score: float | None = None, confirmed: int = CONFIRMED, lost_s: float = LOST_S
    ) -> None:
        """Nothing is followed yet.

        Args:
            score: 0..1, from which detections are reported; only those begin a track.
            least_score: 0..1, from which they keep a track alive; ``None`` is ``UNSURE`` of ``score``. Run the pipeline
                with it (``Pipeline.process(..., score_threshold=tracker.least_score)``) and show ``confident`` ones.
            confirmed: frames in a row in which something must be seen before it is a track, 1 or more.
            lost_s: seconds, over 0, for which an unseen track is kept. Frames that are further apart share no tracks.

        Raises:
            ValueError: an argument is outside its range.
        """
        least_score = UNSURE * score if least_score is None else least_score
        if not 0 <= least_score <= score <= 1:
            raise ValueError(f"scores should be 0 <= least_score <= score <= 1, got {least_score} and {score}")
        if confirmed < 1 or not lost_s > 0:
            raise ValueError(f"confirmed should be 1 or more and lost_s over 0, got {confirmed} and {lost_s}")
        self.score = score
        self.least_score = least_score
        self._confirmed = confirmed
        self._lost_s = lost_s
        self._now_s = 0.0  # of this tracker's own clock, which never runs backwards
        self._time_s: float | None = None
        self._step_s = USUAL_STEP_S
        self._next_id = 1
        self._records: list[_Record] = []

    def update(self, detections: Detections, time_s: float) -> tuple[Track, ...]:
        """Take in one frame.

        Args:
            detections: of the frame, from ``least_score`` on; lower ones are left out.
            time_s: when it was captured, in seconds of any clock. A clock that stands still or runs backwards (a file
                that begins again, a time of day that is put right) counts as one more step like the last one.

        Returns:
            The confirmed tracks, lost ones included (``seen`` is False), in the order of ids.
        """
        step_s = self._pass_time(time_s)
        self._records = [record for record in self._records if self._now_s - record.last_s <= self._lost_s]
        found = _found(detections, _as_float32(self.least_score))
        sure_score = _as_float32(self.score)
        sure = [index for index, one in enumerate(found) if one.score >= sure_score]
        confirmed = [record for record in self._records if record.id]
        news = [record for record in self._records if not record.id]
        recent = {id(record) for record in confirmed if record.seen}  # in the frame before
        for record in self._records:
            record.expect(step_s)
        _find_overlaps(self._records, found)
        free = set(range(len(found)))
        self._assign(confirmed, set(sure), free, found, MIN_IOU)
        left = [record for record in confirmed if id(record) in recent and not record.seen]
        self._assign(left, free.difference(sure), free, found, MIN_IOU_UNSURE)
        self._assign(news, free.intersection(sure), free, found, MIN_IOU_NEW)
        self._records = [record for record in self._records if record.seen or record.id]
        self._records += [_Record(found[index], self._now_s) for index in sure if index in free]
        self._name()
        return tuple(record.track(self._now_s) for record in sorted(self._records, key=_number) if record.id)

    def expected(self, time_s: float) -> NDArray[np.float32]:
        """[N, 4] xyxy: where everything that is followed, unconfirmed and lost tracks too, is expected at ``time_s``.

        In pixels of the source picture; parts may lie outside. Nothing changes: masks ask for it before the frame is
        looked at. They look around the boxes anyway; boxes that grow with the doubt about them made masks of a fixed
        camera (pets09) a seventh larger, and what was found no better.
        """
        step_s = self._step_to(time_s)
        return np.array([record.motion.after(step_s).box() for record in self._records], np.float32).reshape(-1, 4)

    def _step_to(self, time_s: float) -> float:
        if self._time_s is None:
            return 0.0
        return time_s - self._time_s if time_s > self._time_s else self._step_s

    def _pass_time(self, time_s: float) -> float:
        step = self._step_to(time_s)
        self._now_s += step
        self._step_s = step or self._step_s
        self._time_s = time_s
        return step

    def _assign(
        self, records: list[_Record], offered: set[int], free: set[int], found: list[_Found], min_iou: float
    ) -> None:
        """Give tracks those detections ``offered`` that overlap them; these are no longer ``free``."""
        wanted = [
            (row, index, overlap - min_iou)
            for row, record in enumerate(records)
            for index, overlap in record.overlaps.items()
            if overlap > min_iou and index in offered
        ]
        for row, index in _pairs(wanted):
            records[row].see(found[index], self._now_s)
            free.remove(index)

    def _name(self) -> None:
        """Unconfirmed tracks that were seen often enough get their id."""
        for record in self._records:
            if not record.id and record.hits >= self._confirmed:
                record.id = self._next_id
                self._next_id += 1


class _Found(NamedTuple):
    """A detection."""

    box: Box
    grown: Box
    score: float
    class_id: int


def _found(detections: Detections, least_score: float) -> list[_Found]:
    """The detections that score ``least_score`` or more, best first."""
    rows = zip(detections.boxes_xyxy.tolist(), detections.scores.tolist(), detections.class_ids.tolist(), strict=True)
    return [_Found(tuple(box), _grown(box), score, class_id) for box, score, class_id in rows if score >= least_score]


def _as_float32(score: float) -> float:
    """A limit as exact as the scores that are held against it."""
    return float(np.float32(score))


def _grown(box: Iterable[float]) -> Box:
    left, top, right, bottom = box
    across, down = BUFFER * (right - left), BUFFER * (bottom - top)
    return left - across, top - down, right + across, bottom + down


def _find_overlaps(records: list[_Record], found: list[_Found]) -> None:
    """Note for each track which detections of its class overlap the box where it is expected, and how much."""
    grown = [_grown(record.motion.box()) for record in records]
    if len(records) * len(found) > FEW_PAIRS:
        overlaps = iou_matrix(np.array(grown), np.array([one.grown for one in found]))
        classes = np.array([one.class_id for one in found])
        overlaps[np.array([record.class_id for record in records])[:, None] != classes] = 0
        for row, index in np.argwhere(overlaps > 0).tolist():
            records[row].overlaps[index] = float(overlaps[row, index])
        return
    for record, expected in zip(records, grown, strict=True):
        for index, one in enumerate(found):
            if one.class_id == record.class_id and (overlap := _iou(expected, one.grown)) > 0:
                record.overlaps[index] = overlap


def _iou(first: Box, second: Box) -> float:
    """Intersection over union; most pairs of a frame share nothing."""
    left, top, right, bottom = first
    other_left, other_top, other_right, other_bottom = second
    width = min(right, other_right) - max(left, other_left)
    height = min(bottom, other_bottom) - max(top, other_top)
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    areas = (right - left) * (bottom - top) + (other_right - other_left) * (other_bottom - other_top)
    return shared / (areas - shared)


def _pairs(wanted: list[tuple[int, int, float]]) -> list[tuple[int, int]]:
    """The pairs (row, column) of ``wanted`` (row, column, gain over 0) that gain the most together."""
    rows, columns = {row for row, _, _ in wanted}, {column for _, column, _ in wanted}
    if len(rows) == len(columns) == len(wanted):  # nobody competes, as in most frames
        return [(row, column) for row, column, _ in wanted]
    all_rows, all_columns = sorted(rows), sorted(columns)
    row_places = {row: place for place, row in enumerate(all_rows)}
    column_places = {column: place for place, column in enumerate(all_columns)}
    gains = np.zeros((len(all_rows), len(all_columns)), np.float32)
    for row, column, gain in wanted:
        gains[row_places[row], column_places[column]] = gain
    return [(all_rows[row], all_columns[column]) for row, column in best_pairs(gains)]


def _number(record: _Record) -> int:
    return record.id


class _Record:
    """What is followed."""

    def __init__(self, found: _Found, now_s: float) -> None:
        self.id = 0  # until it is confirmed
        self.class_id = found.class_id
        self.first_s = now_s
        self.hits = 0
        self.motion = Motion.of(found.box)
        self.overlaps: dict[int, float] = {}
        """Detection -> how much it overlaps the box that was expected, where it does."""

        self._mark(found, now_s)

    def expect(self, step_s: float) -> None:
        """It has moved on for ``step_s`` seconds, and was not seen yet."""
        self.seen = False
        self.motion = self.motion.after(step_s)
        self.overlaps = {}

    def see(self, found: _Found, now_s: float) -> None:
        """It is this detection of the frame at ``now_s``."""
        self.motion = self.motion.seen(found.box)
        self._mark(found, now_s)

    def _mark(self, found: _Found, now_s: float) -> None:
        self.seen = True
        self.last_s = now_s
        self.hits += 1
        self.score = found.score
        self._box = found.box

    def track(self, now_s: float) -> Track:
        """The track as others see it; its box is what is expected where it was not seen."""
        return Track(
            id=self.id,
            class_id=self.class_id,
            score=self.score,
            box_xyxy=self._box if self.seen else self.motion.box(),
            age_s=now_s - self.first_s,
            seen=self.seen,
        )


def confident(detections: Detections, score: float) -> Detections:
    """Those that score ``score`` (0..1) or more: what sinks may see of what a tracker was given."""
    count = np.count_nonzero(detections.scores >= score)  # they come best first
    return Detections(
        boxes_xyxy=detections.boxes_xyxy[:count],
        scores=detections.scores[:count],
        class_ids=detections.class_ids[:count],
    )
