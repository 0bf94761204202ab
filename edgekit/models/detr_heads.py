"""The heads of a DETR: what a token or query is of, and where it ends (DETR, arXiv 2005.12872, section 3.2)."""

from __future__ import annotations

import math

from torch import Tensor, nn

_FIRST_CHANCE = 0.01
"""Of each class before training, as in focal loss (arXiv 1708.02002, section 4.1)."""


class BoxHead(nn.Module):
    """[..., width] -> [..., 4]: what is added to the logits of a box. Zero before training."""

    def __init__(self, width: int, *, side_bias: float = 0.0) -> None:
        """``side_bias``: what the head adds to the logits of width and height before training."""
        super().__init__()
        last = nn.Linear(width, 4)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        nn.init.constant_(last.bias[2:], side_bias)
        self.layers = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, width), last])

    def forward(self, tokens: Tensor) -> Tensor:
        first, second, last = self.layers
        result: Tensor = last(second(first(tokens).relu()).relu())
        return result


def class_head(width: int, classes: int) -> nn.Linear:
    """[..., width] -> logits [..., classes], each of which starts at a chance of one in a hundred."""
    head = nn.Linear(width, classes)
    nn.init.constant_(head.bias, -math.log((1 - _FIRST_CHANCE) / _FIRST_CHANCE))
    return head


def inverse_sigmoid(shares: Tensor, epsilon: float = 1e-5) -> Tensor:
    """Logits of 0..1; what is nearer to its ends than ``epsilon`` is taken to be there."""
    shares = shares.clamp(0, 1)
    return (shares.clamp(min=epsilon) / (1 - shares).clamp(min=epsilon)).log()
