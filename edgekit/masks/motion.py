"""Where a fixed camera's picture changes: a background model on a small grey picture.

Each cell of the mask grid is seen as 4x4 points, each point the mean of the pixels under it. A point is foreground when
it is further from its background than its own noise explains. The background follows the picture as a running mean
(Wren et al., Pfinder, PAMI 1997) with a running mean deviation beside it; both learn in real time, because live sources
leave frames out. Changes that are no objects:

* the light: clouds, or a camera's automatic exposure, scale the whole picture, so the background is scaled by the
  median ratio to the picture first. When most of it still differs, a lamp went on or the camera was turned: then the
  whole picture counts as changed, and the background begins anew.
* a pole in the wind: a point is held against the darkest and the brightest of the 3x3 background points around it, so
  that a picture that shakes by less than a quarter of a cell does not change.
* leaves and water: where a point often differs, its deviation grows, and it takes more to be foreground; up to a limit,
  so that no point ever becomes blind.

Who stands still becomes background after about ``MEMORY_S`` and is then found by other sources alone: hence keyframes
(``edgekit.masks.keyframes``) and ``omg & motion | tracks``. G is the mask grid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.data.resize import resize_into
from edgekit.masks.pyramid import Mask, dilate, picture_cells

if TYPE_CHECKING:
    from edgekit.data.letterbox import Letterboxed
    from edgekit.masks.sources import MaskInput

Grey = NDArray[np.float32]

POINTS = 4
"""Points of a cell along each side: fewer average a distant person away, more see the sensor's noise."""

MEMORY_S = 30.0
"""Seconds after which about two thirds of what changed are background: people wait that long at a crossing."""

USUAL_STEP_S = 0.1
"""The time between frames where it is not known."""

LEAST_LEVELS = 8.0
"""Grey levels 0..255 by which a point must differ at least: a dark coat at dusk does, compression does not."""

DEVIATIONS = 6.0
"""Of its mean absolute deviation by which a point must differ: 4.8 standard deviations of plain noise, which of 6400
points one exceeds in a hundred frames."""

MOST_LEVELS = 40.0
"""However much a point flickers, so much is always foreground."""

LEAST_RATIO = 0.004
"""A change of light by less than this, a grey level of 255, is none: rounding must not add up."""

ENOUGH_POINTS = 500
"""Points of the picture by which the light is judged; a median of more says nothing else."""

NEW_SCENE = 0.6
"""Share of the points that must differ for the whole scene to count as another one."""


class Motion:
    """The cells where something moves, and those beside them.

    For frames of one camera in order; make another one for another stream.
    """

    def __init__(self) -> None:
        """No frame was seen yet."""
        self._background: Grey = np.zeros((0, 0), np.float32)
        self._deviation: Grey = np.zeros((0, 0), np.float32)
        self._frames = 0
        self._time_s: float | None = None
        self._geometry: tuple[int, ...] = ()
        self._picture: Mask = np.zeros((0, 0), np.bool_)
        self._points: Mask = np.zeros((0, 0), np.bool_)  # those on the picture
        self._some: NDArray[np.int64] = np.zeros(0, np.int64)  # of those, enough to judge the light
        self._inner: Mask = np.zeros((0, 0), np.bool_)  # and not on its rim, where shaking shows what was outside

    def __call__(self, frame: MaskInput) -> Mask:
        """The mask of ``frame``: all of the picture for a first frame or a new scene."""
        now = _points(frame.letterboxed, frame.spec.mask_grid)
        step_s = self._pass_time(frame.time_s)
        geometry = (frame.letterboxed.source_height, frame.letterboxed.source_width, *now.shape)
        if geometry != self._geometry:
            self._geometry = geometry
            self._picture = picture_cells(frame.letterboxed, frame.spec)
            self._points = picture_cells(frame.letterboxed, frame.spec, grid=now.shape)
            on_picture = np.flatnonzero(self._points)
            self._some = on_picture[:: max(1, len(on_picture) // ENOUGH_POINTS)]
            self._inner = ~dilate(np.pad(~self._points, 1, constant_values=True), 1)[1:-1, 1:-1]
            self._begin(now)
            return self._picture.copy()
        ratio = self._median_ratio(now)
        if abs(ratio - 1) > LEAST_RATIO:
            self._background[self._points] *= np.float32(ratio)
        foreground = self._differs(now)
        if foreground.sum() > NEW_SCENE * self._inner.sum():
            self._begin(now)
            return self._picture.copy()
        self._learn(now, foreground, step_s)
        rows, columns = frame.spec.mask_grid
        # One point is enough: it is the mean of many pixels already, and of a distant person there is no more.
        cells = np.asarray(foreground.reshape(rows, POINTS, columns, POINTS).any((1, 3)), np.bool_)
        return dilate(cells, 1) & self._picture

    def _median_ratio(self, now: Grey) -> float:
        """How much brighter the picture is as a whole."""
        ratios = (now.ravel()[self._some] + 1) / (self._background.ravel()[self._some] + 1)
        middle = len(ratios) // 2
        return float(np.partition(ratios, middle)[middle])

    def _differs(self, now: Grey) -> Mask:
        threshold = np.minimum(np.maximum(DEVIATIONS * self._deviation, LEAST_LEVELS), MOST_LEVELS)[1:-1, 1:-1]
        darkest, brightest = _extremes(self._background)
        foreground = np.zeros(now.shape, np.bool_)
        middle = now[1:-1, 1:-1]
        foreground[1:-1, 1:-1] = (middle < darkest - threshold) | (middle > brightest + threshold)
        foreground &= self._inner
        return foreground

    def _begin(self, now: Grey) -> None:
        self._background = now.copy()
        self._deviation = np.full_like(now, LEAST_LEVELS / DEVIATIONS)
        self._frames = 1

    def _learn(self, now: Grey, foreground: Mask, step_s: float) -> None:
        self._frames += 1
        steady = np.float32(min(1.0, step_s / MEMORY_S))
        # At first the plain mean of all frames, but not of what passes by: it would leave a trail.
        share = np.where(foreground, steady, np.float32(max(float(steady), 1 / self._frames)))
        difference = now - self._background
        self._background += share * difference
        # What is far off is an object; it must not teach a point to overlook the next one.
        noise = np.minimum(np.abs(difference), 2 * self._deviation + 1)
        self._deviation += share * (noise - self._deviation)

    def _pass_time(self, time_s: float | None) -> float:
        before, self._time_s = self._time_s, time_s
        step = USUAL_STEP_S if time_s is None or before is None else time_s - before
        return step if step > 0 else USUAL_STEP_S


def _points(letterboxed: Letterboxed, grid: tuple[int, int]) -> Grey:
    """[rows * POINTS, columns * POINTS] grey levels 0..255."""
    small = np.empty((grid[0] * POINTS, grid[1] * POINTS, 3), np.uint8)
    resize_into(letterboxed.image, small)
    return np.asarray(small @ np.array([0.3, 0.59, 0.11], np.float32), np.float32)


def _extremes(background: Grey) -> tuple[Grey, Grey]:
    """The darkest and the brightest of the 3x3 points around each point that is not on the rim."""
    low = np.minimum(np.minimum(background[:-2], background[1:-1]), background[2:])
    high = np.maximum(np.maximum(background[:-2], background[1:-1]), background[2:])
    return (
        np.minimum(np.minimum(low[:, :-2], low[:, 1:-1]), low[:, 2:]),
        np.maximum(np.maximum(high[:, :-2], high[:, 1:-1]), high[:, 2:]),
    )
