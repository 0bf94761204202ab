"""Multi-scale deformable attention (Deformable DETR, arXiv 2010.04159, section 4.1), in plain PyTorch.

Each query looks at a few points of every level instead of at all cells: a linear layer says where, relative to the
query's reference, another how much each point counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Shapes = Sequence[tuple[int, int]]
"""Rows and columns of each level."""


class Attended(NamedTuple):
    """What an attention gave, and where it looked."""

    output: Tensor
    """[B, Q, width]."""

    locations: Tensor
    """[B, Q, heads, levels, points, 2]: x, y, 0..1 of the padded map; beyond that is zero."""

    weights: Tensor
    """[B, Q, heads, levels, points]; levels and points sum to 1."""


class DeformableAttention(nn.Module):
    """Queries [B, Q, width] look at the tokens [B, S, width] of several feature maps."""

    def __init__(self, width: int = 256, *, levels: int = 4, heads: int = 8, points: int = 4) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{width} channels cannot be shared out to {heads} heads")
        self.levels, self.heads, self.points = levels, heads, points
        self.sampling_offsets = nn.Linear(width, heads * levels * points * 2)
        self.attention_weights = nn.Linear(width, heads * levels * points)
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)
        self._start()

    def _start(self) -> None:
        """Uniform weights; each head looks in a direction of its own, point ``i`` is ``i + 1`` cells away."""
        angles = torch.arange(self.heads, dtype=torch.float32) * (2 * math.pi / self.heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)  # onto the sides of a square
        steps = torch.arange(1, self.points + 1, dtype=torch.float32)
        offsets = directions[:, None, None] * steps[None, None, :, None].expand(self.heads, self.levels, -1, 2)
        nn.init.zeros_(self.sampling_offsets.weight)
        self.sampling_offsets.bias = nn.Parameter(offsets.reshape(-1))
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, queries: Tensor, references: Tensor, tokens: Tensor, shapes: Shapes, padding: Tensor) -> Attended:
        """Attend.

        Args:
            queries: [B, Q, width].
            references: [B, Q, levels, 2] x, y, or [B, Q, levels, 4] with width and height, 0..1 of the padded map.
            tokens: [B, S, width], the levels one after the other, rows first.
            shapes: rows and columns of each level; their products sum to S.
            padding: [B, S], true where a token is beyond its picture's edge; such tokens count as zeros.
        """
        batch, count = queries.shape[:2]
        sizes = (self.heads, self.levels, self.points)
        values = self.value_proj(tokens).masked_fill(padding[..., None], 0.0)
        offsets = self.sampling_offsets(queries).view(batch, count, *sizes, 2)
        weights = self.attention_weights(queries).view(batch, count, self.heads, -1).softmax(-1)
        weights = weights.view(batch, count, *sizes)
        centres = references[:, :, None, :, None, :2]
        if references.shape[-1] == 2:  # offsets are in cells of the level
            cells = offsets.new_tensor([(columns, rows) for rows, columns in shapes])
            locations = centres + offsets / cells[None, None, None, :, None, :]
        else:  # in halves of the reference box, spread over the points
            locations = centres + offsets / self.points * references[:, :, None, :, None, 2:] * 0.5
        output = self.output_proj(sample(values, shapes, locations, weights))
        return Attended(output, locations, weights)


def sample(values: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum of what lies at ``locations``, between cells bilinearly.

    Args:
        values: [B, S, heads * D].
        shapes: rows and columns of each level; their products sum to S.
        locations: [B, Q, heads, levels, points, 2] x, y, 0..1 of the map; the centre of its first cell is half a cell
            in. Beyond the map is zero.
        weights: [B, Q, heads, levels, points].

    Returns:
        [B, Q, heads * D].
    """
    batch, count, heads, _, points, _ = locations.shape
    depth = values.shape[-1] // heads
    maps = torch.split(values, [rows * columns for rows, columns in shapes], dim=1)
    # grid_sample counts from -1 to 1. Heads go with the batch: [B * heads, Q, levels, points, 2].
    grid = (2 * locations - 1).transpose(1, 2).flatten(0, 1)
    sampled = [
        F.grid_sample(
            level.transpose(1, 2).reshape(batch * heads, depth, rows, columns),
            grid[:, :, index],
            mode="bilinear",
            padding_mode="zeros",
            align_corners=False,
        )
        for index, (level, (rows, columns)) in enumerate(zip(maps, shapes, strict=True))
    ]
    shares = weights.transpose(1, 2).reshape(batch * heads, 1, count, len(shapes) * points)
    output = (torch.cat(sampled, dim=-1) * shares).sum(-1)  # [B * heads, D, Q]
    return output.view(batch, heads * depth, count).transpose(1, 2)
