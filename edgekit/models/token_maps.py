"""The tokens of a transformer over feature maps: where each lies, and how large a box it proposes."""

from __future__ import annotations

import torch
from torch import Tensor

from edgekit.models.deformable_attention import Shapes
from edgekit.models.masking import MaskPyramid

_FIRST_SIDE = 0.05
"""Side of the box that a token of the finest level proposes, 0..1 of the picture; it doubles from level to level."""

_NEAREST, _FARTHEST = 0.01, 0.99
"""Tokens whose proposal has a coordinate or a side beyond these propose nothing: its logit would be huge."""


def valid_ratios(paddings: list[Tensor]) -> Tensor:
    """Paddings [B, H, W], one a level -> [B, levels, 2]: x, y shares of the map that hold the picture."""
    ratios = []
    for padding in paddings:
        inside = ~padding
        rows, columns = inside[:, :, 0].sum(1), inside[:, 0, :].sum(1)
        ratios.append(torch.stack([columns / padding.shape[2], rows / padding.shape[1]], dim=-1))
    return torch.stack(ratios, dim=1).float()


def token_centres(shapes: Shapes, ratios: Tensor) -> Tensor:
    """Centres of all cells [B, S, 2]: x, y, 0..1 of the picture, beyond 1 in the padding.

    Args:
        shapes: rows and columns of each level; their products sum to S.
        ratios: :func:`valid_ratios`.
    """
    centres = []
    for level, (rows, columns) in enumerate(shapes):
        y = (torch.arange(rows, dtype=ratios.dtype, device=ratios.device) + 0.5) / rows
        x = (torch.arange(columns, dtype=ratios.dtype, device=ratios.device) + 0.5) / columns
        grid = torch.stack([x.expand(rows, columns), y[:, None].expand(rows, columns)], dim=-1)
        centres.append(grid.reshape(1, -1, 2) / ratios[:, None, level])
    return torch.cat(centres, dim=1)


def token_proposals(shapes: Shapes, centres: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
    """The box that each token proposes, and whether it may.

    Args:
        shapes: rows and columns of each level; their products sum to S.
        centres: :func:`token_centres`.
        padding: [B, S].

    Returns:
        Logits of centre x, centre y, width and height [B, S, 4], infinite where nothing is proposed; and [B, S], true
        where a box is proposed.
    """
    sides = torch.cat(
        [
            torch.full((rows * columns,), _FIRST_SIDE * 2**level, dtype=centres.dtype, device=centres.device)
            for level, (rows, columns) in enumerate(shapes)
        ]
    )
    boxes = torch.cat([centres, sides[None, :, None].expand(len(centres), -1, 2)], dim=-1)
    proposes = ((boxes > _NEAREST) & (boxes < _FARTHEST)).all(-1) & ~padding
    logits = torch.log(boxes / (1 - boxes))
    return logits.masked_fill(~proposes[..., None], float("inf")), proposes


def active_tokens(pyramid: MaskPyramid, shapes: Shapes) -> Tensor | None:
    """[B, S] bool: the tokens of active cells, at each level those a convolution there would write; ``None`` is all.

    Raises:
        ValueError: the mask has no level of one of ``shapes``.
    """
    if pyramid.everywhere:
        return None
    return torch.cat([pyramid.at(rows, columns).flatten(1) for rows, columns in shapes], dim=1) > 0


def gather(tokens: Tensor, indices: Tensor) -> Tensor:
    """Tokens [B, S, ...] at indices [B, k] -> [B, k, ...]."""
    trailing = tokens.shape[2:]
    places = indices.reshape(*indices.shape, *(1 for _ in trailing)).expand(*indices.shape, *trailing)
    return tokens.gather(1, places)
