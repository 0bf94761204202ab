"""Which tokens the encoder of Sparse DETR refines (arXiv 2111.14330, section 3.2): a small network scores them all."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from edgekit.spec import token_budget


class ScoringNetwork(nn.Module):
    """Tokens [B, S, width] -> scores [B, S]: each token by itself, beside the mean of all."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.layer1 = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.layer2 = nn.Sequential(
            nn.Linear(width, half), nn.GELU(), nn.Linear(half, half // 2), nn.GELU(), nn.Linear(half // 2, 1)
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        features: Tensor = self.layer1(tokens)
        own, shared = features.chunk(2, dim=-1)
        mean = shared.mean(dim=1, keepdim=True).expand_as(shared)
        scores: Tensor = self.layer2(torch.cat([own, mean], dim=-1))
        return scores.squeeze(-1)


class Selection(NamedTuple):
    """The tokens that the encoder refines."""

    indices: Tensor
    """[B, k] int64, best first."""

    kept: Tensor
    """[B] int64: how many of a picture's k are its own; what comes after them is computed and thrown away."""


def select_tokens(scores: Tensor, padding: Tensor | None, share: float, allowed: Tensor | None = None) -> Selection:
    """The best tokens of each picture: as many as ``share`` of those that lie in it, rounded down, and one.

    Args:
        scores: [B, S].
        padding: [B, S], true beyond a picture's edge; ``None`` where pictures fill the batch, which makes k a constant.
        share: 0..1 of a picture's tokens (rho in the paper).
        allowed: [B, S], true where an objectness mask lets tokens be refined; ``None`` is everywhere. The share stays
            one of all the picture's tokens, so a mask only ever takes tokens away.
    """
    batch, tokens = scores.shape
    if padding is None:
        most = token_budget(tokens, share)
        kept = torch.full((batch,), most, dtype=torch.int64, device=scores.device)
    else:
        kept = torch.minimum(((~padding).sum(1) * share).long() + 1, (~padding).sum(1))
        most = max(int(kept.max()), 1)
        scores = scores.masked_fill(padding, float("-inf"))
    if allowed is not None:
        usable = allowed if padding is None else allowed & ~padding
        kept = torch.minimum(kept, usable.sum(1))
        scores = scores.masked_fill(~allowed, float("-inf"))
    return Selection(scores.topk(most, dim=1).indices, kept)
