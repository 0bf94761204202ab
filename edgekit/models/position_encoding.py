"""Sines and cosines that tell a transformer where something lies (DETR, arXiv 2005.12872, appendix A.4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

TEMPERATURE = 10_000.0
_EPSILON = 1e-6


class SinePositionEncoding(nn.Module):
    """A vector for every cell of a feature map, of its row and its column over those of the picture in the batch.

    Has no parameters. Half of the channels encode the row, half the column; each half alternates sine and cosine.
    """

    def __init__(self, width: int) -> None:
        """``width``: channels, a multiple of 4."""
        super().__init__()
        self._each = width // 2

    def forward(self, padding: Tensor) -> Tensor:
        """Padding [B, H, W], true beyond a picture's edge -> encoding [B, width, H, W]."""
        inside = (~padding).float()
        rows, columns = inside.cumsum(1), inside.cumsum(2)
        # Centres of cells, over the height and width that hold the picture: 0..2 pi.
        rows = (rows - 0.5) / (rows[:, -1:, :] + _EPSILON) * 2 * math.pi
        columns = (columns - 0.5) / (columns[:, :, -1:] + _EPSILON) * 2 * math.pi
        return torch.cat([sines(rows, self._each), sines(columns, self._each)], dim=3).permute(0, 3, 1, 2)


def sines(angles: Tensor, count: int) -> Tensor:
    """Angles [...] in radians -> [..., count]: sine and cosine in turns, at wavelengths from 2 pi to 20,000 pi."""
    exponents = torch.arange(count, dtype=angles.dtype, device=angles.device).div(2, rounding_mode="floor") * 2 / count
    turned = angles[..., None] / TEMPERATURE**exponents
    return torch.stack([turned[..., 0::2].sin(), turned[..., 1::2].cos()], dim=-1).flatten(-2)
