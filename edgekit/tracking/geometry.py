"""Points beside polygons and lines, many points at once, in pixels.

T points [T, 2] as x, y.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


def inside_polygon(points: Points, corners: Points) -> NDArray[np.bool_]:
    """[T] whether each point lies in a polygon [corners, 2], by the even-odd rule."""
    start, end = corners, np.roll(corners, -1, axis=0)
    x, y = points[:, :1], points[:, 1:]
    crosses = (start[:, 1] > y) != (end[:, 1] > y)  # [T, corners]
    rise = np.where(crosses, end[:, 1] - start[:, 1], 1)  # what is not crossed may be level, or next to
    crossing = start[:, 0] + np.where(crosses, y - start[:, 1], 0) * (end[:, 0] - start[:, 0]) / rise
    return np.asarray((crosses & (x < crossing)).sum(1) % 2 == 1, np.bool_)


def distance_to_outline(points: Points, corners: Points) -> NDArray[np.float64]:
    """[T] how far each point is from the nearest edge of a polygon."""
    start, way = corners, np.roll(corners, -1, axis=0) - corners
    length = np.maximum((way**2).sum(1), 1e-12)
    offset = points[:, None] - start  # [T, corners, 2]
    along = np.clip((offset * way).sum(2) / length, 0, 1)
    away = offset - along[..., None] * way
    return np.asarray(np.sqrt((away**2).sum(2).min(1)))


def side_of_line(points: Points, start: Points, end: Points) -> NDArray[np.float64]:
    """[T] distance of each point from the endless line through ``start`` [2] and ``end`` [2].

    Positive to the right, seen from ``start`` to ``end``, in a picture whose y grows downwards.
    """
    way = end - start
    offset = points - start
    return np.asarray((way[0] * offset[:, 1] - way[1] * offset[:, 0]) / max(float(np.hypot(*way)), 1e-12))


def passes_between(first: Points, second: Points, start: Points, end: Points) -> bool:
    """Whether the straight way from one point to another on the other side meets the segment ``start``..``end``."""
    ends = side_of_line(np.stack([start, end]), first, second)
    return bool(ends[0] * ends[1] <= 0)
