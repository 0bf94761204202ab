"""Pixel-adaptive mask refinement (PAMR, arXiv 2005.08104, section 3.4) in numpy: ``edgekit.models.tcl.pamr``'s twin.

Each round replaces a cell by a weighted mean of 48 neighbours, eight at each of six distances. A neighbour weighs more
the more alike its colour is, in units of the colours' own spread around there. N masks, h x w their size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from edgekit.segmentation.enlarging import corner_interpolation

ROUNDS = 10
DISTANCES = (1, 2, 4, 8, 12, 24)
"""As TCL uses them, on maps of a quarter of the picture's resolution."""

AROUND = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
NEIGHBOURS = tuple(step for step in AROUND if step != (0, 0))

SPREAD = 0.1
"""Share of the standard deviation that a difference of colours is divided by."""


def refine(
    picture: NDArray[np.float32],
    masks: NDArray[np.float32],
    *,
    rounds: int = ROUNDS,
    distances: Sequence[int] = DISTANCES,
) -> NDArray[np.float32]:
    """Masks that follow the picture.

    Args:
        picture: [3, H, W], in any unit; it is shrunk to the masks' size first.
        masks: [N, h, w].
        rounds: how often; each is a mean over the neighbours alone, without the cell itself.
        distances: of the neighbours, in cells; beyond the border a cell of the border stands in.

    Returns:
        [N, h, w].
    """
    rows, columns = masks.shape[1:]
    down = corner_interpolation(rows, picture.shape[1]).astype(np.float32)
    across = corner_interpolation(columns, picture.shape[2]).astype(np.float32).T
    weights = affinities(np.asarray(down @ picture @ across, np.float32), distances)  # [48, h, w]
    part = np.empty_like(masks)
    for _ in range(rounds):
        refined = np.zeros_like(masks)
        for weight, shifted in zip(weights, moved(masks, distances, NEIGHBOURS), strict=True):
            np.multiply(shifted, weight, out=part)
            refined += part
        masks = refined
    return masks


def affinities(picture: NDArray[np.float32], distances: Sequence[int]) -> NDArray[np.float32]:
    """[3, h, w] -> how much each neighbour weighs, [8 * distances, h, w], adding up to 1."""
    # The cell itself counts once for each distance, as published.
    spread = np.stack(list(moved(picture, distances, AROUND))).std(axis=0, ddof=1)
    unit = np.float32(1e-8) + np.float32(SPREAD) * spread
    unlike = [(np.abs(picture - other) / unit).mean(axis=0) for other in moved(picture, distances, NEIGHBOURS)]
    closeness = -np.stack(unlike)
    weights = np.exp(closeness - closeness.max(axis=0))
    return np.asarray(weights / weights.sum(axis=0), np.float32)


def moved(
    maps: NDArray[np.float32], distances: Sequence[int], steps: Sequence[tuple[int, int]]
) -> Iterator[NDArray[np.float32]]:
    """``maps`` [C, h, w] moved so that each cell holds its neighbour: for each distance, each of ``steps``."""
    rows, columns = maps.shape[1:]
    border = max(distances)
    padded = np.pad(maps, ((0, 0), (border, border), (border, border)), mode="edge")  # serves smaller distances, too
    for distance in distances:
        for dy, dx in steps:
            top, left = border + distance * dy, border + distance * dx
            yield padded[:, top : top + rows, left : left + columns]
