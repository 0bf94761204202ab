"""Keyframes: every now and then the whole is looked at, and what a cheap mask would have missed is not missed again.

A mask of motion or tracks costs next to nothing and does not see who stands still. In a keyframe the detector looks at
all that could be looked at (``edgekit.masks.expression.keyframe_of``). What it finds there outside of the cheap mask

* stays visible for a frame: its cells are pinned. If it is found there again it is no false alarm, and stays visible
  until the next keyframe, where it is pinned again as long as keyframes find it.
* Such an object that was not pinned before says that objects come in unseen: the next keyframe follows after half the
  time, down to ``QUICKEST``, and they slowly become rarer again while nothing new is found like this.

A pin costs the cells of one object; so executed MACs stay near those of the cheap mask, and recall near the whole's.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from edgekit.boxes import Boxes, iou_matrix
from edgekit.data.letterbox import Letterboxed
from edgekit.masks.pyramid import Mask
from edgekit.masks.sources import MaskInput, MaskSource, cells_around
from edgekit.masks.statistics import MIN_ACTIVE_SHARE, active_area_share

QUICKEST = 1 / 8
"""Of the asked interval: at a keyframe every 2 s, one each quarter of a second."""

RELAXING = 1.25
"""By how much the interval grows with each keyframe that shows nothing missed: it takes four to make up for one."""

SAME_IOU = 0.3
"""Overlap from which something found in two frames in a row is the same."""


@dataclass(frozen=True, kw_only=True)
class _Keyframe:
    """What is known of the last keyframe."""

    letterboxed: Letterboxed
    usual: Mask
    """What would have been looked at, had it been no keyframe: the cheap mask and the pins."""

    boxes_xyxy: Boxes = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    """[N, 4] what was found in it, in pixels of the source; known in the next frame, as the rest is."""

    missed: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    """[N] which of them lie outside of ``usual``."""

    unseen: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    """[N] which of them lie outside of the next frame's cheap mask."""


class Keyframes:
    """A ``cheap`` mask, and ``whole`` as well in keyframes.

    For consecutive frames of one camera; make another one for another stream.
    """

    def __init__(
        self, cheap: MaskSource, whole: MaskSource, *, seconds: float | None = None, frames: int | None = None
    ) -> None:
        """The first frame is a keyframe.

        Args:
            cheap: asked in every frame, as it may learn from it.
            whole: asked in keyframes.
            seconds: between keyframes, over 0, by ``MaskInput.time_s``, or by the clock where nobody says the time.
            frames: between keyframes, 1 or more; with both, whichever comes first.

        Raises:
            ValueError: neither is given, or one is outside its range.
        """
        if seconds is None and frames is None:
            raise ValueError("keyframes need a number of seconds or of frames between them")
        if not (seconds is None or seconds > 0) or not (frames is None or frames >= 1):
            raise ValueError(f"keyframes are some seconds or frames apart, got {seconds} s and {frames} frames")
        self._cheap = cheap
        self._whole = whole
        self._seconds = seconds
        self._frames = frames
        self.pace = 1.0
        """Interval between keyframes now, over the one that was asked for: ``QUICKEST`` to 1."""
        self._since = 0  # frames since the last keyframe
        self._last_s: float | None = None  # when that was
        self._keyframe: _Keyframe | None = None  # if it was the frame before
        self._suspects: _Keyframe | None = None  # if it was the frame before that
        self._pinned: Mask = np.zeros((0, 0), np.bool_)

    def __call__(self, frame: MaskInput) -> Mask:
        """The mask of ``frame``."""
        cheap = self._cheap(frame)
        if self._pinned.shape != cheap.shape:
            self._pinned = np.zeros_like(cheap)
        self._learn(frame, cheap)
        usual = cheap | self._pinned
        now_s = time.monotonic() if frame.time_s is None else frame.time_s
        self._since += 1
        if not self._due(now_s):
            return usual
        self._since, self._last_s = 0, now_s
        self._keyframe = _Keyframe(letterboxed=frame.letterboxed, usual=usual)
        return np.asarray(usual | self._whole(frame), np.bool_)

    def _due(self, now_s: float) -> bool:
        if self._last_s is None or now_s < self._last_s:  # the first frame, or a file that begins again
            return True
        by_time = self._seconds is not None and now_s - self._last_s >= self.pace * self._seconds
        return by_time or (self._frames is not None and self._since >= max(1, round(self.pace * self._frames)))

    def _learn(self, frame: MaskInput, cheap: Mask) -> None:
        """What of ``frame.previous``, if that frame was a keyframe or came after one, is missed without keyframes?"""
        spec = frame.spec
        keyframe, self._keyframe = self._keyframe, None
        suspects, self._suspects = self._suspects, None
        if frame.previous is None:
            return
        found = frame.previous.boxes_xyxy[frame.previous.scores >= spec.score_threshold]
        if suspects is not None:
            again = np.asarray((iou_matrix(suspects.boxes_xyxy, found) >= SAME_IOU).any(1), np.bool_)
            missed = bool((again & suspects.missed).any())
            self.pace = max(QUICKEST, self.pace / 2) if missed else min(1.0, self.pace * RELAXING)
            self._pinned = self._pins(suspects, again, frame)
        if keyframe is not None:
            boxes = keyframe.letterboxed.to_input(found)

            def hidden(mask: Mask) -> NDArray[np.bool_]:
                return active_area_share(boxes, mask, spec.height, spec.width) < MIN_ACTIVE_SHARE

            # Pinned is what this frame's mask leaves out: a keyframe's may be everything, as motion is in a first one.
            self._suspects = replace(keyframe, boxes_xyxy=found, missed=hidden(keyframe.usual), unseen=hidden(cheap))
            self._pinned = self._pins(self._suspects, np.ones(len(found), np.bool_), frame)

    @staticmethod
    def _pins(keyframe: _Keyframe, kept: NDArray[np.bool_], frame: MaskInput) -> Mask:
        """The cells around unseen boxes that are ``kept``; none where the picture of ``frame`` has another size now."""
        then, now = keyframe.letterboxed, frame.letterboxed
        same_size = (then.source_height, then.source_width) == (now.source_height, now.source_width)
        return cells_around(keyframe.boxes_xyxy[keyframe.unseen & kept & same_size], frame)
