"""The encoder of Deformable DETR (arXiv 2010.04159), dense, or of Sparse DETR (arXiv 2111.14330), on chosen tokens.

A sparse encoder refines the tokens that were selected and reads all: the others keep what the backbone says.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.models.deformable_attention import DeformableAttention, Shapes
from edgekit.models.detr_output import HeadOutput
from edgekit.models.token_maps import gather
from edgekit.models.token_scoring import Selection


class EncoderLayer(nn.Module):
    """Attention of some tokens to all, then a network of two layers, each with a residual before its norm."""

    def __init__(self, width: int, feed_forward: int, dropout: float, *, levels: int, heads: int, points: int) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(width, levels=levels, heads=heads, points=points)
        self.norm1 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, feed_forward)
        self.linear2 = nn.Linear(feed_forward, width)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, queries: Tensor, positions: Tensor, references: Tensor, tokens: Tensor, shapes: Shapes, padding: Tensor
    ) -> Tensor:
        """Queries and positions [B, k, width], references [B, k, levels, 2], tokens [B, S, width] -> [B, k, width]."""
        attended = self.self_attn(queries + positions, references, tokens, shapes, padding).output
        queries = self.norm1(queries + self.dropout(attended))
        hidden = self.dropout(F.relu(self.linear1(queries)))
        result: Tensor = self.norm2(queries + self.dropout(self.linear2(hidden)))
        return result


class Encoder(nn.Module):
    """Layers, and after all of them but the last heads that help them learn, if there are any."""

    class_embed: nn.ModuleList | None
    bbox_embed: nn.ModuleList | None

    def __init__(self, layers: list[EncoderLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.class_embed = self.bbox_embed = None

    def give_heads(self, class_heads: Sequence[nn.Module], box_heads: Sequence[nn.Module]) -> None:
        """Heads for the layers 0, 1, ... but the last; they stay the caller's modules as well."""
        self.class_embed, self.bbox_embed = nn.ModuleList(class_heads), nn.ModuleList(box_heads)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        references: Tensor,
        shapes: Shapes,
        padding: Tensor,
        *,
        selection: Selection | None = None,
        proposals: Tensor | None = None,
    ) -> tuple[Tensor, tuple[HeadOutput, ...]]:
        """Refine tokens.

        Args:
            tokens: [B, S, width] of the backbone.
            positions: [B, S, width] encodings of where and in which level they are.
            references: [B, S, levels, 2] their centres, 0..1 of the padded map.
            shapes: rows and columns of each level; their products sum to S.
            padding: [B, S].
            selection: which tokens to refine; ``None`` is all.
            proposals: [B, S, 4] logits of the boxes that the heads move; without them the heads are not asked.

        Returns:
            [B, S, width], and what each head says of the tokens that were refined.
        """
        if selection is None:
            chosen = tokens
        else:
            indices = selection.indices
            chosen, positions, references = (gather(x, indices) for x in (tokens, positions, references))
            if proposals is not None:
                proposals = gather(proposals, indices)
        refined = []
        for layer in self.layers:
            chosen = layer(chosen, positions, references, tokens, shapes, padding)
            tokens = chosen if selection is None else _put_back(tokens, chosen, selection)
            refined.append(chosen)
        if proposals is None or self.class_embed is None or self.bbox_embed is None:
            return tokens, ()
        heads = zip(refined, self.class_embed, self.bbox_embed, strict=False)  # none for the last layer
        return tokens, tuple(HeadOutput(name(x), (move(x) + proposals).sigmoid()) for x, name, move in heads)


def _put_back(tokens: Tensor, chosen: Tensor, selection: Selection) -> Tensor:
    """``tokens`` with those of ``selection`` replaced by ``chosen``; what a picture has beyond its own is dropped."""
    indices, kept = selection
    ranks = torch.arange(indices.shape[1], device=indices.device)
    own = (ranks[None] < kept[:, None])[..., None]
    chosen = torch.where(own, chosen, gather(tokens, indices))
    return tokens.scatter(1, indices[..., None].expand_as(chosen), chosen)
