"""A mask that outlives its frame: on a fixed camera the next frame needs nearly the same one.

A mask network takes a good part of a sparse frame's time, and the native engine rebuilds its tables only when the mask
changes. So a mask is kept for a number of frames, unless something moves where it does not look (``Reused``). And where
a network is unsure of a cell it was sure of it a moment ago, so a cell that was wanted stays active (``Held``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.data.resize import resize_into
from edgekit.masks.budget import Budget
from edgekit.masks.expression import keyframe_of, parse_expression
from edgekit.masks.keyframes import Keyframes
from edgekit.masks.pyramid import Mask
from edgekit.masks.sources import MaskInput, MaskSource, mask_source, off
from edgekit.spec import DetectorSpec
from edgekit.tracking.zones_file import ZonesFile

MOVED = 6.0
"""Grey levels 0..255 by which the mean of an inactive cell must change for a new mask: the noise of a cell's 256 pixels
is far below, a person who walks into it far above."""


class Held:
    """What ``source`` has wanted in this frame or in one of the ``frames`` before it.

    For consecutive frames of one camera; make another one for another stream.
    """

    def __init__(self, source: MaskSource, *, frames: int) -> None:
        """Raises ``ValueError`` unless ``frames`` is at least 0, which is ``source`` itself."""
        if frames < 0:
            raise ValueError(f"a cell is held for no frames or some, got {frames}")
        self._source = source
        self._frames = frames
        self._left: NDArray[np.int64] = np.zeros((0, 0), np.int64)  # [G, G] frames for which a cell is still held

    def __call__(self, frame: MaskInput) -> Mask:
        """The mask of ``frame`` and what is left of earlier ones."""
        mask = self._source(frame)
        if self._left.shape != mask.shape:
            self._left = np.zeros(mask.shape, np.int64)
        self._left = np.where(mask, self._frames + 1, self._left)
        held = self._left > 0
        self._left -= held
        return held


def on_video(source: MaskSource, *, every: int, hold: int) -> MaskSource:
    """``source`` for the frames of one camera: asked every ``every`` frames, its cells held for ``hold`` more."""
    kept = source if every == 1 else Reused(source, every=every)
    return kept if hold == 0 else Held(kept, frames=hold)


def video_mask(
    text: str,
    spec: DetectorSpec,
    *,
    every: int = 1,
    hold: int = 0,
    keyframe_s: float | None = None,
    keyframe_frames: int | None = None,
    budget: float | None = None,
) -> MaskSource:
    """The mask that ``text`` describes for the frames of one camera: parsed, kept, held, with keyframes, and limited.

    Args:
        text: as ``--mask`` takes it (``edgekit.masks.expression``).
        spec: of the detector.
        every: as in :func:`on_video`.
        hold: as in :func:`on_video`.
        keyframe_s: seconds between keyframes (``edgekit.masks.keyframes``).
        keyframe_frames: frames between keyframes; with both, whichever comes first. With neither there are none.
        budget: most cells that may be active, as a share of all (``edgekit.masks.budget``); ``None`` is any.

    Raises:
        UsageError: as :func:`edgekit.masks.sources.parse_mask_source`.
        ValueError: a number is outside its range.
    """
    expression = parse_expression(text)
    files: dict[str, ZonesFile] = {}
    source = on_video(mask_source(expression, spec, files), every=every, hold=hold)
    if keyframe_s is not None or keyframe_frames is not None:
        whole = keyframe_of(expression)
        everything = off if whole is None else mask_source(whole, spec, files)
        source = Keyframes(source, everything, seconds=keyframe_s, frames=keyframe_frames)
    return source if budget is None else Budget(source, share=budget)


class Reused:
    """The mask of ``source``, asked anew every ``every`` frames, or sooner when something moves in the background.

    For consecutive frames of one camera; make another one for another stream.
    """

    def __init__(self, source: MaskSource, *, every: int, moved: float = MOVED) -> None:
        """Raises ``ValueError`` unless ``every`` is at least 1."""
        if every < 1:
            raise ValueError(f"a mask lasts at least one frame, got {every}")
        self._source = source
        self._every = every
        self._moved = moved
        self._age = 0
        self._mask: Mask | None = None
        self._cells: NDArray[np.float32] = np.zeros((0, 0, 3), np.float32)

    def __call__(self, frame: MaskInput) -> Mask:
        """The mask of ``frame``, or an earlier frame's."""
        if self._every == 1:
            return self._source(frame)
        cells = _cell_means(frame)
        if self._mask is None or self._age >= self._every or self._background_moved(cells, self._mask):
            self._mask, self._cells, self._age = self._source(frame), cells, 0
        self._age += 1
        return self._mask.copy()

    def _background_moved(self, cells: NDArray[np.float32], mask: Mask) -> bool:
        if cells.shape != self._cells.shape:
            return True
        change = np.abs(cells - self._cells).max(axis=2)
        return bool((change[~mask] > self._moved).any())


def _cell_means(frame: MaskInput) -> NDArray[np.float32]:
    """Mean colour of each cell [G, G, 3]."""
    means = np.empty((*frame.spec.mask_grid, 3), np.uint8)
    resize_into(frame.letterboxed.image, means)
    return means.astype(np.float32)
