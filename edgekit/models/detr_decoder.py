"""The decoder of Deformable DETR (arXiv 2010.04159, section 4.2 and appendix A.4): queries become objects."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.models.deformable_attention import Attended, DeformableAttention, Shapes
from edgekit.models.detr_heads import inverse_sigmoid
from edgekit.models.detr_output import DecoderAttention, HeadOutput


class DecoderLayer(nn.Module):
    """Queries look at one another, then at the tokens, then pass a network of two layers."""

    def __init__(self, width: int, feed_forward: int, dropout: float, *, levels: int, heads: int, points: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.cross_attn = DeformableAttention(width, levels=levels, heads=heads, points=points)
        self.norm1 = nn.LayerNorm(width)  # the published names number the norms out of order
        self.linear1 = nn.Linear(width, feed_forward)
        self.linear2 = nn.Linear(feed_forward, width)
        self.norm3 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.self_attn.out_proj.weight)

    def forward(
        self, queries: Tensor, positions: Tensor, references: Tensor, tokens: Tensor, shapes: Shapes, padding: Tensor
    ) -> tuple[Tensor, Attended]:
        """Queries and positions [B, Q, width], references [B, Q, levels, 2 or 4], tokens [B, S, width]."""
        placed = queries + positions
        among = self.self_attn(placed, placed, queries, need_weights=False)[0]
        queries = self.norm2(queries + self.dropout(among))
        attended = self.cross_attn(queries + positions, references, tokens, shapes, padding)
        queries = self.norm1(queries + self.dropout(attended.output))
        hidden = self.dropout(F.relu(self.linear1(queries)))
        queries = self.norm3(queries + self.dropout(self.linear2(hidden)))
        return queries, attended


class Decoded(NamedTuple):
    """What a decoder gives."""

    heads: tuple[HeadOutput, ...]
    """One a layer, or only the last."""

    attention: DecoderAttention
    """Of all layers."""


class Decoder(nn.Module):
    """Layers that each look around the boxes of the one before (or around fixed points, without refinement)."""

    class_embed: nn.ModuleList | None
    bbox_embed: nn.ModuleList | None

    def __init__(self, layers: list[DecoderLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.class_embed = self.bbox_embed = None

    def refine_with(self, class_heads: nn.ModuleList, box_heads: nn.ModuleList) -> None:
        """Move the boxes from layer to layer with these heads; they stay the caller's modules as well."""
        self.class_embed, self.bbox_embed = class_heads, box_heads

    def forward(
        self,
        queries: Tensor,
        positions: Tensor,
        references: Tensor,
        tokens: Tensor,
        shapes: Shapes,
        padding: Tensor,
        ratios: Tensor,
        *,
        class_heads: nn.ModuleList,
        box_heads: nn.ModuleList,
        all_heads: bool,
    ) -> Decoded:
        """Decode.

        Args:
            queries: [B, Q, width].
            positions: [B, Q, width], added wherever queries are compared.
            references: [B, Q, 2 or 4] points or boxes, 0..1 of the picture.
            tokens: [B, S, width] of the encoder.
            shapes: rows and columns of each level; their products sum to S.
            padding: [B, S].
            ratios: [B, levels, 2] x, y shares of the maps that hold the picture.
            class_heads: one a layer.
            box_heads: one a layer.
            all_heads: ask all class heads, as losses need, and not the last alone.
        """
        heads, locations, weights = [], [], []
        for index, (layer, class_of, move) in enumerate(zip(self.layers, class_heads, box_heads, strict=False)):
            scale = torch.cat([ratios] * (references.shape[-1] // 2), dim=-1)
            queries, attended = layer(
                queries, positions, references[:, :, None] * scale[:, None], tokens, shapes, padding
            )
            locations.append(attended.locations.detach())
            weights.append(attended.weights.detach())
            last = index == len(self.layers) - 1
            if not (last or all_heads or self.bbox_embed is not None):
                continue
            moved, base = move(queries), inverse_sigmoid(references)
            if references.shape[-1] == 2:
                moved = torch.cat([moved[..., :2] + base, moved[..., 2:]], dim=-1)
            else:
                moved = moved + base
            boxes = moved.sigmoid()
            if last or all_heads:
                heads.append(HeadOutput(class_of(queries), boxes))
            if self.bbox_embed is not None:
                references = boxes.detach()
        return Decoded(tuple(heads), DecoderAttention(torch.stack(locations, 1), torch.stack(weights, 1)))
