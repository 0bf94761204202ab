"""SSD anchors: where they are, which of them a mask keeps, and how offsets become boxes. numpy only.

Shapes: A anchors in the order level, row, column, size.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from edgekit.masks.pyramid import Mask, mask_at
from edgekit.spec import AnchorLevel, DetectorSpec

MAX_LOG_SIZE = 4.0
"""Decoded sizes are at most e^4 times the anchor's: a broken head gives a large box, never an infinity."""


def ssd_levels(
    *, rows_columns: tuple[tuple[int, int], ...], height: int, width: int, min_scale: float, max_scale: float
) -> tuple[AnchorLevel, ...]:
    """The anchors of SSD (arXiv 1512.02325, section 2.2) with the reduced finest level of TensorFlow's SSDLite.

    Scales are spaced evenly from ``min_scale`` to ``max_scale`` (shares of the input side). The finest level has
    three shapes (half its scale at 1:1, then 2:1 and 1:2), the others six (1, 2, 1/2, 3, 1/3 and the geometric mean
    with the next scale).
    """
    count = len(rows_columns)
    scales = [min_scale + (max_scale - min_scale) * k / (count - 1) for k in range(count)] + [1.0]
    levels = []
    for index, (rows, columns) in enumerate(rows_columns):
        scale, following = scales[index], scales[index + 1]
        if index == 0:
            shapes = [(scale / 2, 1.0), (scale, 2.0), (scale, 0.5)]
        else:
            shapes = [(scale, ratio) for ratio in (1.0, 2.0, 0.5, 3.0, 1 / 3)]
            shapes.append(((scale * following) ** 0.5, 1.0))
        sizes = tuple((width * s * ratio**0.5, height * s / ratio**0.5) for s, ratio in shapes)
        levels.append(AnchorLevel(rows=rows, columns=columns, sizes=sizes))
    return tuple(levels)


def anchor_boxes(spec: DetectorSpec) -> NDArray[np.float32]:
    """All anchors as [A, 4] centre x, centre y, width, height in input pixels; a DETR has none."""
    parts = [np.zeros((0, 4), np.float32)]
    for level in spec.anchors:
        centre_y = (np.arange(level.rows) + 0.5) * spec.height / level.rows
        centre_x = (np.arange(level.columns) + 0.5) * spec.width / level.columns
        part = np.zeros((level.rows, level.columns, len(level.sizes), 4), np.float32)
        part[..., 0] = centre_x[None, :, None]
        part[..., 1] = centre_y[:, None, None]
        part[..., 2:] = np.array(level.sizes, np.float32)
        parts.append(part.reshape(-1, 4))
    return np.concatenate(parts)


def anchor_mask(spec: DetectorSpec, mask: Mask) -> NDArray[np.bool_]:
    """[A] True for the anchors whose cell is active in ``mask`` at their level."""
    cells, starts, site_of_anchor = _cells_under_anchors(spec)
    return np.asarray(np.logical_or.reduceat(mask.reshape(-1)[cells], starts)[site_of_anchor], np.bool_)


@functools.lru_cache(maxsize=4)
def _cells_under_anchors(spec: DetectorSpec) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The mask cells under every site of every level, site by site, any of which makes it active.

    Returns:
        The cells [N] as indices into G * G; where each site's begin among them [sites]; each anchor's site [A].
    """
    covered = np.concatenate(
        [
            np.kron(_shares(spec.mask_grid[0], level.rows), _shares(spec.mask_grid[1], level.columns))
            for level in spec.anchors
        ]
    )
    sites, cells = np.nonzero(covered)
    starts = np.searchsorted(sites, np.arange(len(covered)))
    per_site = [len(level.sizes) for level in spec.anchors for _ in range(level.rows * level.columns)]
    return cells, starts, np.repeat(np.arange(len(per_site)), per_site)


def _shares(cells: int, sites: int) -> NDArray[np.float32]:
    """[sites, cells] of one axis: 1 where a cell touches a site."""
    columns = [mask_at(cell[:, None], rows=sites, columns=1) for cell in np.eye(cells, dtype=np.bool_)]
    return np.concatenate(columns, axis=1).astype(np.float32)


def decode(spec: DetectorSpec, anchors: NDArray[np.float32], offsets: NDArray[np.float32]) -> NDArray[np.float32]:
    """Boxes [N, 4] xyxy in input pixels from anchors [N, 4] and the head's offsets [N, 4] (dx, dy, dw, dh)."""
    centre = anchors[:, :2] + offsets[:, :2] * spec.centre_variance * anchors[:, 2:]
    half = anchors[:, 2:] * np.exp(np.minimum(offsets[:, 2:] * spec.size_variance, MAX_LOG_SIZE)) / 2
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)
