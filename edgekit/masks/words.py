"""Masks from words: a segmenter (``edgekit.segmentation``) that looks at a frame now and then.

It knows what things are called and costs more than the detector that it helps, so what it saw stands until it is asked
again. Cells grow by one in all directions: what moves stays inside for a while. What comes in meanwhile is not seen;
``tcl(words.edgekit) | motion`` sees it.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.masks.pyramid import Mask, dilate, picture_cells
from edgekit.masks.sources import MaskInput
from edgekit.segmentation.pipeline import SegmentationPipeline, open_segmenter

EVERY_S = 1.0
"""Seconds from one look to the next, if nobody says otherwise."""

GROWN = 1
"""Cells."""


class WordMask:
    """The cells in and around what a segmenter finds of its prompts; for the frames of one camera."""

    def __init__(self, segmenter: SegmentationPipeline, *, every_s: float = EVERY_S) -> None:
        """Raises ``ValueError`` unless ``every_s`` is at least 0, which is every frame."""
        if not every_s >= 0:
            raise ValueError(f"a segmenter looks again after some seconds, got {every_s}")
        self._segmenter = segmenter
        self._every_s = every_s
        self._looked_s: float | None = None
        self._geometry: tuple[int, ...] = ()
        self._mask: Mask = np.zeros((0, 0), np.bool_)

    def __call__(self, frame: MaskInput) -> Mask:
        """The mask of ``frame``. Without a time, frames are pictures of their own, and each is looked at."""
        boxed, spec = frame.letterboxed, frame.spec
        geometry = (boxed.source_height, boxed.source_width, spec.height, spec.width, *spec.mask_grid)
        if self._due(frame.time_s) or geometry != self._geometry:
            self._mask, self._geometry, self._looked_s = self._look(frame), geometry, frame.time_s
        return self._mask.copy()

    def _due(self, now_s: float | None) -> bool:
        if now_s is None or self._looked_s is None or now_s < self._looked_s:  # also a file that begins again
            return True
        return now_s - self._looked_s >= self._every_s

    def _look(self, frame: MaskInput) -> Mask:
        boxed, spec = frame.letterboxed, frame.spec
        height = min(spec.height - boxed.top, max(1, round(boxed.source_height * boxed.scale)))
        width = min(spec.width - boxed.left, max(1, round(boxed.source_width * boxed.scale)))
        place = np.s_[boxed.top : boxed.top + height, boxed.left : boxed.left + width]
        found = np.zeros((spec.height, spec.width), np.bool_)
        found[place] = self._segmenter.process(np.ascontiguousarray(boxed.image[place])).labels > 0
        return dilate(any_in_cells(found, spec.mask_grid), GROWN) & picture_cells(boxed, spec)


def any_in_cells(pixels: NDArray[np.bool_], grid: tuple[int, int]) -> Mask:
    """Which cells of ``grid`` (rows, columns) over ``pixels`` [H, W] hold a pixel that is set."""
    starts = [np.arange(cells) * length // cells for cells, length in zip(grid, pixels.shape, strict=True)]
    rows = np.logical_or.reduceat(pixels, starts[0], axis=0)
    return np.asarray(np.logical_or.reduceat(rows, starts[1], axis=1), np.bool_)


@functools.lru_cache(maxsize=4)
def segmenter_at(path: Path) -> SegmentationPipeline:
    """The segmenter of a bundle, loaded once however many cameras use it; raises as ``open_segmenter``.

    Its masks are not refined along colours, which takes as long as all the rest: cells are coarser than outlines.
    """
    return open_segmenter(path, threads=None).with_options(pamr=False)
