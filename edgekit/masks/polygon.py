"""Polygon masks: the cells that polygons of a zones file cover (``edgekit.tracking.zones`` has the format).

The mask is active under any polygon; where an outline crosses itself, the even-odd rule decides.
"""

from __future__ import annotations

import difflib
import logging

import numpy as np
from numpy.typing import NDArray

from edgekit.data.letterbox import Letterboxed
from edgekit.errors import UsageError
from edgekit.masks.pyramid import Mask
from edgekit.tracking.zones import Zones
from edgekit.tracking.zones_file import ZonesFile

log = logging.getLogger("edgekit")

Polygon = NDArray[np.float64]
"""[corners, 2] x, y in 0..1 of the source picture."""


class Region:
    """The polygons of a zones file that a mask looks at, as the file is now: all of them, or the one of a name."""

    def __init__(self, file: ZonesFile, zone: str | None = None) -> None:
        """Of ``file``, which others may use too; raises :class:`UsageError` when it has no zone of that name."""
        self._file = file
        self._zone = zone
        self._version = file.version
        self.polygons = self._polygons(file.zones)

    def refresh(self) -> bool:
        """Look at the file again; whether ``polygons`` are others now. What makes no sense changes nothing."""
        self._file.refresh()
        if self._version == self._file.version:
            return False
        self._version = self._file.version
        try:
            self.polygons = self._polygons(self._file.zones)
        except UsageError as error:
            log.warning("the mask stays as it was: %s", " ".join(str(error).split()))
            return False
        return True

    def _polygons(self, zones: Zones) -> tuple[Polygon, ...]:
        found = tuple(zone.corners for zone in zones.zones if self._zone in (None, zone.name))
        if self._zone is None or found:
            return found
        names = [zone.name for zone in zones.zones]
        near = difflib.get_close_matches(self._zone, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names) or 'none'}"
        raise UsageError(f"{self._file.path} has no zone called {self._zone!r}: {hint}")


def polygons_to_mask(polygons: tuple[Polygon, ...], letterboxed: Letterboxed, *, grid: tuple[int, int]) -> Mask:
    """The cells of ``grid`` (rows, columns) over the letterboxed input with at least one pixel centre under a polygon.

    Letterbox padding is never active: corners lie in 0..1 of the picture.
    """
    height, width = letterboxed.image.shape[:2]
    offset = np.array([letterboxed.left, letterboxed.top])
    size = np.array([letterboxed.source_width, letterboxed.source_height]) * letterboxed.scale
    mask = np.zeros(grid, np.bool_)
    for polygon in polygons:
        inside = _pixels_inside(polygon * size + offset, height=height, width=width)
        rows, columns = np.nonzero(inside)
        mask[rows * grid[0] // height, columns * grid[1] // width] = True
    return mask


def _pixels_inside(corners: NDArray[np.float64], *, height: int, width: int) -> Mask:
    """[height, width] even-odd test of every pixel centre: an odd number of edges lies to its right."""
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    inside = np.zeros((height, width), np.bool_)
    for edge in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        (x0, y0), (x1, y1) = sorted(edge, key=lambda corner: float(corner[1]))  # downwards, whichever way round it is
        rows = np.flatnonzero((y0 > y) != (y1 > y))  # the rows whose centre line this edge crosses
        crossing = x0 + (y[rows] - y0) * ((x1 - x0) / (y1 - y0)) if len(rows) else np.zeros(0)
        inside[rows] ^= x[None, :] < crossing[:, None]
    return inside
