"""A DETR for one picture of one size: what does not depend on the picture is a constant, all shapes are fixed.

Computes what ``edgekit.models.sparse_detr`` does in evaluation, in operations that inference engines have. A budget of
k tokens is chosen by top-k, gathered, refined and put back, so that a sparse encoder is sparse in every engine.

It falls into three stages, each a graph of its own: what convolves, the encoder, and the decoder. The first is all that
sparse programs and integers are for; the second is made for several numbers of tokens, of which a frame takes the
smallest that its mask leaves.

S tokens of all levels one after the other, k tokens that the encoder refines, Q queries, C classes; no batch inside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from edgekit.models.backbone import STRIDES
from edgekit.models.deformable_attention import Shapes
from edgekit.models.detr_decoder import DecoderLayer
from edgekit.models.detr_encoder import EncoderLayer
from edgekit.models.detr_heads import inverse_sigmoid
from edgekit.models.frozen_batch_norm import FrozenBatchNorm2d
from edgekit.models.masked_detr import for_backbone
from edgekit.models.masking import MaskPyramid
from edgekit.models.position_encoding import TEMPERATURE
from edgekit.models.sparse_detr import NOTHING, SparseDetr, unseen_ranks
from edgekit.models.static_attention import StaticAttention, StaticSelfAttention, feed_forward
from edgekit.models.token_maps import token_centres, token_proposals
from edgekit.models.token_scoring import ScoringNetwork
from edgekit.spec import DetectorSpec, token_budget

NOWHERE = 1e4
"""Logit of a coordinate for infinity: its sigmoid is 1 all the same, and float16 can hold it."""

FORBIDDEN = -1e4
"""Score of a token outside the mask, far under any other."""

_BOX_LIMIT = math.log((1 - 1e-5) / 1e-5)
"""``inverse_sigmoid`` of a sigmoid is the logit itself within these bounds."""


class StaticDetr(nn.Module):
    """``forward(image [1, 3, height, width], mask)``; see there. Shares the weights of its model."""

    positions: Tensor
    centres: Tensor
    proposals: Tensor
    proposes: Tensor
    first_queries: Tensor
    query_positions: Tensor
    points: Tensor
    point_logits: Tensor

    def __init__(self, model: SparseDetr, *, height: int, width: int, spec: DetectorSpec | None = None) -> None:
        """Make one.

        Args:
            model: in evaluation mode and float32; what it holds is changed (frozen batch norms become plain ones).
            height: of the pictures, in pixels.
            width: likewise.
            spec: whose ``mean`` and ``std`` the pictures have; ``None`` is those of the backbone.

        Raises:
            ValueError: the model makes two levels or more of its own, of which the second reads the first's result.
        """
        super().__init__()
        if len(model.input_proj) > len(STRIDES) + 1:
            raise ValueError(
                f"expected at most {len(STRIDES) + 1} levels in a static DETR, got {len(model.input_proj)};"
                " use one with DetrSize(levels=4)"
            )
        self.shapes = level_shapes(height=height, width=width, levels=len(model.input_proj))
        tokens = sum(rows * columns for rows, columns in self.shapes)
        self.size, self.two_stage, self.share, self.spec = model.size, model.two_stage, model.share, spec
        self.budget = None if model.share is None else token_budget(tokens, model.share)
        self.backbone, self.normalise = thaw(model.backbone[0]), partial(for_backbone, model)
        self.projections = nn.ModuleList(project[0] for project in model.input_proj)  # type: ignore[index]
        self.norms = nn.ModuleList(_LevelNorm(project[1]) for project in model.input_proj)  # type: ignore[index]
        self.transformer = transformer = model.transformer
        if model.share is not None:
            self.scoring = _Scoring(transformer.enc_mask_predictor)
        self.encoder = nn.ModuleList(_EncoderLayer(layer, self.shapes) for layer in transformer.encoder.layers)
        self.decoder = nn.ModuleList(_DecoderLayer(layer, self.shapes) for layer in transformer.decoder.layers)
        self.class_embed, self.bbox_embed = model.class_embed, model.bbox_embed
        self._keep_constants(model)

    def _keep_constants(self, model: SparseDetr) -> None:
        with torch.no_grad():
            whole = [torch.zeros(1, *shape, dtype=torch.bool) for shape in self.shapes]
            positions = [
                model.backbone[1](level)[0].flatten(1).T + self.transformer.level_embed[index]
                for index, level in enumerate(whole)
            ]
            centres = token_centres(self.shapes, torch.ones(1, len(self.shapes), 2))
            beyond = torch.cat([level.flatten(1) for level in whole], dim=1)
            boxes, proposes = token_proposals(self.shapes, centres, beyond)
            self.register_buffer("positions", torch.cat(positions))
            self.register_buffer("centres", centres[0])
            self.register_buffer("proposals", boxes[0].clamp(max=NOWHERE))
            self.register_buffer("proposes", proposes[0, :, None].float())
            if not self.two_stage:
                placed, queries = model.query_embed.weight.chunk(2, dim=-1)
                points = self.transformer.reference_points(placed).sigmoid()
                self.register_buffer("first_queries", queries.clone())
                self.register_buffer("query_positions", placed.clone())
                self.register_buffer("points", points)
                self.register_buffer("point_logits", inverse_sigmoid(points))

    def forward(self, image: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Detect.

        Args:
            image: [1, 3, height, width], normalised as the backbone wants it.
            mask: [1, 1, G, G] zeros and ones. Outside it the backbone sees nothing, the encoder refines nothing and
                nothing is found. ``None`` is everywhere.

        Returns:
            Logits [1, Q, C], and boxes [1, Q, 4]: centre x, centre y, width, height, 0..1 of the picture.
        """
        pyramid = MaskPyramid(mask)
        image = pyramid.apply(image)
        allowed = None if mask is None else self.allowed(pyramid)
        tokens = self.encode(self.tokens(self.features(image, pyramid)), allowed)
        logits, boxes = self.decode(tokens, allowed)
        return logits[None], boxes[None]

    def features(self, image: Tensor, pyramid: MaskPyramid) -> list[Tensor]:
        """A picture [1, 3, height, width], zero outside the mask -> each level's projection, [1, cells, width]."""
        maps = self.backbone(image if self.spec is None else self.normalise(image, self.spec), pyramid)
        maps = [*maps, maps[-1]][: len(self.projections)]
        projected = [pyramid.apply(layer(level)) for layer, level in zip(self.projections, maps, strict=True)]
        return [level.permute(0, 2, 3, 1).reshape(1, -1, self.size.width) for level in projected]

    def tokens(self, features: Sequence[Tensor]) -> Tensor:
        """The levels' projections, normalised, one after the other: [S, width]."""
        return torch.cat([norm(level[0]) for norm, level in zip(self.norms, features, strict=True)])

    def allowed(self, pyramid: MaskPyramid) -> Tensor:
        """The mask at every token: [S, 1]."""
        levels = [pyramid.at(*shape).permute(0, 2, 3, 1).reshape(-1, 1) for shape in self.shapes]
        return torch.cat(levels)

    def encode(self, tokens: Tensor, allowed: Tensor | None = None, budget: int | None = None) -> Tensor:
        """Refine tokens [S, width], of which ``allowed`` [S, 1] says which may be chosen.

        A ``budget`` other than the network's own changes nothing as long as no more tokens than it are allowed.
        """
        budget = self.budget if budget is None else budget
        if budget is None or budget == len(tokens):
            for layer in self.encoder:
                refined = layer(tokens, self.positions, self.centres, tokens)
                tokens = refined if allowed is None else refined * allowed + tokens * (1 - allowed)
            return tokens
        chosen = self._ranking(tokens, allowed).topk(budget).indices
        refined, positions, centres = tokens[chosen], self.positions[chosen], self.centres[chosen]
        if allowed is not None:  # what lies outside was only chosen to fill up the budget, and stays what it was
            inside = allowed[chosen]
            outside = refined * (1 - inside)
        for layer in self.encoder:
            refined = layer(refined, positions, centres, tokens)
            update = refined if allowed is None else refined * inside + outside
            tokens = tokens.index_put((chosen,), update)
        return tokens

    def _ranking(self, tokens: Tensor, allowed: Tensor | None) -> Tensor:
        """[S], which tokens to refine first; a network that scores none refines all that are allowed."""
        if self.share is None:
            assert allowed is not None
            return allowed.reshape(-1)
        scores: Tensor = self.scoring(self.transformer.describe(tokens + self.positions, self.proposes[:, 0]))
        if allowed is not None:
            scores = scores * allowed + (1 - allowed) * FORBIDDEN
        return scores.reshape(-1)

    def decode(self, tokens: Tensor, allowed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Tokens [S, width] of the encoder, and which may be found [S, 1] -> logits [Q, C] and boxes [Q, 4]."""
        layers = self.size.decoder_layers
        box_logits: Tensor | None = None
        if self.two_stage:
            best, described = self._best(tokens, allowed)
            # The box head costs more than everything else here; only the best are asked.
            box_logits = self.bbox_embed[layers](described[best]) + self.proposals[best]
            references = box_logits.sigmoid()
            places = _sines(references, self.size.width // 2)
            positions = self.transformer.pos_trans_norm(self.transformer.pos_trans(places))
            queries = tokens[best]
        else:
            queries, positions, references = self.first_queries, self.query_positions, self.points
        for index, layer in enumerate(self.decoder):
            queries = layer(queries, positions, references, tokens)
            if box_logits is not None:
                box_logits = self.bbox_embed[index](queries) + box_logits.clamp(-_BOX_LIMIT, _BOX_LIMIT)
                references = box_logits.sigmoid()
        if box_logits is None:
            moved = self.bbox_embed[layers - 1](queries)
            references = torch.cat([moved[:, :2] + self.point_logits, moved[:, 2:]], dim=1).sigmoid()
        logits = self.class_embed[layers - 1](queries)
        if self.two_stage and allowed is not None:  # where fewer tokens are left than queries
            seen = allowed[best]
            logits = logits * seen + NOTHING * (1 - seen)
        return logits, references

    def _best(self, tokens: Tensor, allowed: Tensor | None) -> tuple[Tensor, Tensor]:
        """Indices [Q] of the tokens [S, width] that are most surely something, and what the heads see of all."""
        described = self.transformer.describe(tokens, self.proposes[:, 0])
        ranking = self.class_embed[self.size.decoder_layers](described).amax(1)
        if allowed is not None:
            inside = allowed.reshape(-1)
            ranking = ranking * inside + unseen_ranks(tokens.shape[0]) * (1 - inside)
        return ranking.topk(min(self.size.queries, tokens.shape[0])).indices, described


class EncoderAlone(nn.Module):
    """Tokens [S, width] -> tokens, by the encoder of a DETR and what chooses its tokens: to time them."""

    def __init__(self, detr: StaticDetr) -> None:
        super().__init__()
        self.detr = detr

    def forward(self, tokens: Tensor) -> Tensor:
        """[S, width] both."""
        return self.detr.encode(tokens)


class BackboneStage(nn.Module):
    """``forward(image [1, 3, height, width], mask [1, 1, G, G])`` -> each level's projection, [1, cells, width]."""

    def __init__(self, detr: StaticDetr) -> None:
        super().__init__()
        self.detr = detr

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Convolve; what lies outside the mask is zero."""
        pyramid = MaskPyramid(mask)
        return tuple(self.detr.features(pyramid.apply(image), pyramid))


class EncoderStage(nn.Module):
    """``forward(mask, *projections)`` -> tokens [1, S, width], of which at most ``budget`` are refined."""

    def __init__(self, detr: StaticDetr, budget: int) -> None:
        super().__init__()
        self.detr, self.budget = detr, budget

    def forward(self, mask: Tensor, *features: Tensor) -> Tensor:
        """``mask`` [1, 1, G, G]; each level's projection [1, cells, width]."""
        allowed = self.detr.allowed(MaskPyramid(mask))
        return self.detr.encode(self.detr.tokens(features), allowed, self.budget)[None]


class DecoderStage(nn.Module):
    """``forward(mask, tokens)`` -> logits [1, Q, C] and boxes [1, Q, 4]."""

    def __init__(self, detr: StaticDetr) -> None:
        super().__init__()
        self.detr = detr

    def forward(self, mask: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """``mask`` [1, 1, G, G]; tokens [1, S, width] of the encoder."""
        logits, boxes = self.detr.decode(tokens[0], self.detr.allowed(MaskPyramid(mask)))
        return logits[None], boxes[None]


class _LevelNorm(nn.Module):
    """A level's group norm over all its cells: [cells, width] both."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        assert isinstance(norm, nn.GroupNorm)
        self.norm = norm

    def forward(self, tokens: Tensor) -> Tensor:
        norm, groups = self.norm, self.norm.num_groups
        tokens = tokens - self._of_groups(tokens.mean(0, keepdim=True), groups)
        variance = self._of_groups((tokens * tokens).mean(0, keepdim=True), groups)
        normed: Tensor = tokens * (norm.weight / (variance + norm.eps).sqrt()) + norm.bias
        return normed

    def _of_groups(self, channels: Tensor, groups: int) -> Tensor:
        """The means [1, width] of channels -> those of their groups, for each channel."""
        means = channels.reshape(groups, -1).mean(1, keepdim=True)
        return (means * torch.ones(groups, channels.shape[1] // groups)).reshape(1, -1)


class _Scoring(nn.Module):
    """``ScoringNetwork`` with the mean of all tokens multiplied once: [S, width] -> [S, 1]."""

    def __init__(self, network: ScoringNetwork) -> None:
        super().__init__()
        self.layer1 = network.layer1
        first, *rest = network.layer2
        assert isinstance(first, nn.Linear)
        half = first.in_features // 2
        self.own, self.shared = (nn.Linear(half, first.out_features, bias=with_bias) for with_bias in (False, True))
        self.own.weight = nn.Parameter(first.weight.detach()[:, :half].clone())
        self.shared.weight = nn.Parameter(first.weight.detach()[:, half:].clone())
        self.shared.bias = first.bias
        self.rest = nn.Sequential(*rest)

    def forward(self, described: Tensor) -> Tensor:
        features = self.layer1(described)
        half = self.own.in_features
        mean = features[:, half:].mean(0, keepdim=True)
        scores: Tensor = self.rest(self.own(features[:, :half]) + self.shared(mean))
        return scores


class _EncoderLayer(nn.Module):
    """``EncoderLayer`` in evaluation, for one picture."""

    def __init__(self, layer: nn.Module, shapes: Shapes) -> None:
        super().__init__()
        assert isinstance(layer, EncoderLayer)
        self.attention = StaticAttention(layer.self_attn, shapes)
        self.norm1, self.linear1, self.linear2, self.norm2 = layer.norm1, layer.linear1, layer.linear2, layer.norm2

    def forward(self, queries: Tensor, positions: Tensor, centres: Tensor, tokens: Tensor) -> Tensor:
        queries = self.norm1(queries + self.attention(queries + positions, centres, tokens))
        result: Tensor = self.norm2(queries + feed_forward(self, queries))
        return result


class _DecoderLayer(nn.Module):
    """``DecoderLayer`` in evaluation, for one picture."""

    def __init__(self, layer: nn.Module, shapes: Shapes) -> None:
        super().__init__()
        assert isinstance(layer, DecoderLayer)
        self.among = StaticSelfAttention(layer.self_attn)
        self.attention = StaticAttention(layer.cross_attn, shapes)
        self.norm1, self.norm2, self.norm3 = layer.norm1, layer.norm2, layer.norm3
        self.linear1, self.linear2 = layer.linear1, layer.linear2

    def forward(self, queries: Tensor, positions: Tensor, references: Tensor, tokens: Tensor) -> Tensor:
        queries = self.norm2(queries + self.among(queries + positions, queries))
        queries = self.norm1(queries + self.attention(queries + positions, references, tokens))
        result: Tensor = self.norm3(queries + feed_forward(self, queries))
        return result


def level_shapes(*, height: int, width: int, levels: int) -> tuple[tuple[int, int], ...]:
    """Rows and columns of each level's map, for pictures of ``height`` x ``width`` pixels."""
    shapes = [(-(-height // stride), -(-width // stride)) for stride in STRIDES]
    while len(shapes) < levels:
        shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
    return tuple(shapes)


def thaw(module: nn.Module) -> nn.Module:
    """Replace frozen batch norms by plain ones with the same numbers, in place; exporters fold those."""
    for part in module.modules():
        for name, child in list(part.named_children()):
            if isinstance(child, FrozenBatchNorm2d):
                norm = nn.BatchNorm2d(len(child.weight), eps=child.eps).eval()
                norm.load_state_dict(child.state_dict(), strict=False)
                setattr(part, name, norm)
    return module


def _sines(shares: Tensor, count: int) -> Tensor:
    """Boxes [Q, 4], 0..1 -> [Q, 4 * count]: ``position_encoding.sines`` of 2 pi times each, cosines as later sines."""
    index = torch.arange(count)
    frequencies = 2 * math.pi / TEMPERATURE ** (index.div(2, rounding_mode="floor") * 2 / count)
    phases = (index % 2) * (math.pi / 2)
    return (shares[:, :, None] * frequencies + phases).sin().reshape(shares.shape[0], -1)
