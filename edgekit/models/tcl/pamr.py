"""Pixel-adaptive mask refinement (PAMR, arXiv 2005.08104, section 3.4): masks that follow the colours of a picture.

Each round replaces a cell by a weighted mean of 48 neighbours, eight at each of six distances. A neighbour weighs more
the more alike its colour is, in units of the colours' own spread around there. B pictures, N masks, h x w their size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekit.segmentation.pamr import AROUND, DISTANCES, NEIGHBOURS, ROUNDS, SPREAD


def refine(picture: Tensor, masks: Tensor, *, rounds: int = ROUNDS, distances: Sequence[int] = DISTANCES) -> Tensor:
    """Masks that follow the picture.

    Args:
        picture: [B, 3, h, w], in any unit.
        masks: [B, N, h, w].
        rounds: how often; each is a mean over the neighbours alone, without the cell itself.
        distances: of the neighbours, in cells; beyond the border a cell of the border stands in.

    Returns:
        [B, N, h, w].
    """
    weights = affinities(picture, distances)  # [B, 48, h, w]
    for _ in range(rounds):
        refined = torch.zeros_like(masks)
        for index, shifted in enumerate(moved(masks, distances, NEIGHBOURS)):
            refined += weights[:, index : index + 1] * shifted
        masks = refined
    return masks


def affinities(picture: Tensor, distances: Sequence[int]) -> Tensor:
    """[B, 3, h, w] -> how much each neighbour weighs, [B, 8 * distances, h, w], adding up to 1."""
    # The cell itself counts once for each distance, as published.
    spread = torch.stack(list(moved(picture, distances, AROUND))).std(dim=0)
    unlike = [(picture - shifted).abs() / (1e-8 + SPREAD * spread) for shifted in moved(picture, distances, NEIGHBOURS)]
    return torch.stack([-difference.mean(dim=1) for difference in unlike], dim=1).softmax(dim=1)


def moved(maps: Tensor, distances: Sequence[int], steps: Sequence[tuple[int, int]]) -> Iterator[Tensor]:
    """``maps`` [B, C, h, w] moved so that each cell holds its neighbour: for each distance, each of ``steps``."""
    rows, columns = maps.shape[-2:]
    for distance in distances:
        padded = F.pad(maps, [distance] * 4, mode="replicate")
        for dy, dx in steps:
            top, left = distance * (1 + dy), distance * (1 + dx)
            yield padded[..., top : top + rows, left : left + columns]
