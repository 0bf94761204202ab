"""Polygon masks: the JSON file that describes them, and the cells they cover.

The file::

    {"normalised": true, "polygons": [[[0.1, 0.5], [0.9, 0.5], [0.9, 1.0], [0.1, 1.0]]]}

Each polygon is a list of at least three [x, y] corners in order around its outline; x grows rightwards and y
downwards. With ``"normalised": true`` (the default) both run from 0 to 1 over the source picture. With ``false`` they
are pixels of a picture of the ``"width"`` and ``"height"`` that the file then must give; the polygons follow when the
camera delivers another resolution. The mask is active under any polygon; where an outline crosses itself, the
even-odd rule decides.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.data.letterbox import Letterboxed
from edgekit.errors import UsageError
from edgekit.masks.pyramid import Mask

Polygon = NDArray[np.float64]
"""[corners, 2] x, y in 0..1 of the source picture."""

KEYS = {"polygons", "normalised", "width", "height"}


def read_polygons(path: Path) -> tuple[Polygon, ...]:
    """The polygons of a file, normalised to 0..1.

    Raises:
        UsageError: the file is missing or malformed; the message names the file and the entry.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"the mask polygons {path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the mask polygons {path} are not JSON: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("polygons"), list) or not document["polygons"]:
        raise UsageError(f'{path}: expected {{"polygons": [[[x, y], ...], ...]}} with at least one polygon')
    if unknown := sorted(set(document) - KEYS):
        raise UsageError(f"{path}: unknown {', '.join(unknown)}; the keys are {', '.join(sorted(KEYS))}")
    limit = _limit(document, path)
    return tuple(_polygon(entry, f"{path}: polygons[{i}]", limit) for i, entry in enumerate(document["polygons"]))


def polygons_to_mask(polygons: tuple[Polygon, ...], letterboxed: Letterboxed, *, grid: int) -> Mask:
    """[grid, grid] the cells of the letterboxed input with at least one pixel centre under a polygon.

    Letterbox padding is never active: corners lie in 0..1 of the picture.
    """
    height, width = letterboxed.image.shape[:2]
    offset = np.array([letterboxed.left, letterboxed.top])
    size = np.array([letterboxed.source_width, letterboxed.source_height]) * letterboxed.scale
    mask = np.zeros((grid, grid), np.bool_)
    for polygon in polygons:
        inside = _pixels_inside(polygon * size + offset, height=height, width=width)
        rows, columns = np.nonzero(inside)
        mask[rows * grid // height, columns * grid // width] = True
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


def _limit(document: dict[str, Any], path: Path) -> tuple[float, float]:
    """The x and y of the lower right corner of the picture in the file's own unit."""
    normalised = document.get("normalised", True)
    if not isinstance(normalised, bool):
        raise UsageError(f"{path}: normalised must be true or false, got {normalised!r}")
    if normalised:
        return 1.0, 1.0
    width, height = document.get("width"), document.get("height")
    for name, value in (("width", width), ("height", height)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(
                f"{path}: {name} must be a whole number of pixels, got {value!r}; "
                "polygons in pixels need the size of the picture that they were drawn on"
            )
    assert isinstance(width, int)
    assert isinstance(height, int)
    return float(width), float(height)


def _polygon(entry: object, where: str, limit: tuple[float, float]) -> Polygon:
    if not isinstance(entry, list) or len(entry) < 3:
        raise UsageError(f"{where} must be a list of at least 3 [x, y] corners, got {_short(entry)}")
    corners = np.array([_corner(point, f"{where}[{i}]", limit) for i, point in enumerate(entry)])
    if np.ptp(corners[:, 0]) == 0 or np.ptp(corners[:, 1]) == 0:
        raise UsageError(f"{where} covers no area: its corners lie on one line")
    return np.asarray(corners / np.array(limit), np.float64)


def _corner(point: object, where: str, limit: tuple[float, float]) -> tuple[float, float]:
    if not isinstance(point, list) or len(point) != 2 or not all(_is_number(value) for value in point):
        raise UsageError(f"{where} must be [x, y] in numbers, got {_short(point)}")
    if not all(0 <= value <= top for value, top in zip(point, limit, strict=True)):
        unit = "0..1 (normalised)" if limit == (1.0, 1.0) else f"the picture of {limit[0]:g} x {limit[1]:g} pixels"
        raise UsageError(f"{where} = {_short(point)} lies outside {unit}")
    return float(point[0]), float(point[1])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
