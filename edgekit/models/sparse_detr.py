"""Deformable DETR (arXiv 2010.04159) and Sparse DETR (arXiv 2111.14330), after github.com/kakaobrain/sparse-detr.

Pictures -> backbone -> tokens of four levels -> encoder -> boxes of the best tokens -> decoder -> objects. A sparse
encoder refines only the share of tokens that a scoring network ranks first; what the decoder looks at most teaches that
network (``edgekit.learning.dam``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.models.backbone import EVERYWHERE, Backbone
from edgekit.models.deformable_attention import Shapes
from edgekit.models.detr_decoder import Decoder, DecoderLayer
from edgekit.models.detr_encoder import Encoder, EncoderLayer
from edgekit.models.detr_heads import BoxHead, class_head
from edgekit.models.detr_output import DetrOutput, HeadOutput
from edgekit.models.masking import MaskPyramid
from edgekit.models.position_encoding import SinePositionEncoding, sines
from edgekit.models.token_maps import active_tokens, gather, token_centres, token_proposals, valid_ratios
from edgekit.models.token_scoring import ScoringNetwork, Selection, select_tokens

NOTHING = -16.0
"""Logit of each class where a mask lets nothing be found: a score of a ten-millionth, and no gradient."""

_GROUPS = 32
"""Of the norm behind each level's projection."""


@dataclass(frozen=True, kw_only=True)
class DetrSize:
    """How large a DETR is; the defaults are the published ones."""

    width: int = 256
    """Channels of a token, a multiple of 32 and of ``heads``."""

    heads: int = 8
    points: int = 4
    """That each head looks at in each level."""

    levels: int = 4
    encoder_layers: int = 6
    decoder_layers: int = 6
    feed_forward: int = 1024
    queries: int = 300
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.width % _GROUPS or self.width % self.heads:
            raise ValueError(f"expected a width that {_GROUPS} and {self.heads} heads divide, got {self.width}")
        if min(self.points, self.encoder_layers, self.decoder_layers, self.queries) < 1 or self.levels < 3:
            raise ValueError(f"expected at least one of everything and three levels, got {self}")


class Transformer(nn.Module):
    """The tokens' part of a DETR, with the published names; :class:`SparseDetr` leads the data through it."""

    def __init__(self, size: DetrSize, *, two_stage: bool, sparse: bool) -> None:
        super().__init__()
        shape = {"levels": size.levels, "heads": size.heads, "points": size.points}
        inner = (size.width, size.feed_forward, size.dropout)
        self.level_embed = nn.Parameter(torch.randn(size.levels, size.width))
        self.encoder = Encoder([EncoderLayer(*inner, **shape) for _ in range(size.encoder_layers)])
        self.decoder = Decoder([DecoderLayer(*inner, **shape) for _ in range(size.decoder_layers)])
        if two_stage:
            self.enc_output = nn.Linear(size.width, size.width)
            self.enc_output_norm = nn.LayerNorm(size.width)
            self.pos_trans = nn.Linear(2 * size.width, size.width)
            self.pos_trans_norm = nn.LayerNorm(size.width)
        else:
            self.reference_points = nn.Linear(size.width, 2)
        if sparse:
            self.enc_mask_predictor = ScoringNetwork(size.width)
        for module in self.modules():
            if isinstance(module, EncoderLayer | DecoderLayer):
                nn.init.xavier_uniform_(module.linear1.weight)
                nn.init.xavier_uniform_(module.linear2.weight)
        for name, parameter in self.named_parameters():
            if name.startswith(("enc_output.", "pos_trans.", "reference_points.")) and parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def describe(self, tokens: Tensor, proposes: Tensor) -> Tensor:
        """Tokens [B, S, width] as the scoring network and the first stage see them: those without proposals zeroed."""
        described: Tensor = self.enc_output_norm(self.enc_output(tokens * proposes[..., None]))
        return described


class SparseDetr(nn.Module):
    """A DETR; ``state_dict`` has the published names, aliases included."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        classes: int = 91,
        size: DetrSize | None = None,
        two_stage: bool = True,
        share: float | None = 0.1,
        encoder_heads: bool = True,
    ) -> None:
        """Make one.

        Args:
            backbone: gives maps of strides 8, 16 and 32.
            classes: logits of a query.
            size: of everything else; ``None`` is the published one.
            two_stage: the best tokens' boxes start the decoder, whose layers refine them ("top-k & BBR" in the paper);
                otherwise learned points do, and nothing is refined (Deformable DETR).
            share: of tokens that the encoder refines, above 0 to 1 (rho in the paper); ``None`` is a dense encoder.
            encoder_heads: whether heads help a sparse encoder's layers learn.

        Raises:
            ValueError: ``share`` is not above 0 to 1, or is given without ``two_stage``.
        """
        super().__init__()
        if share is not None and not (two_stage and 0 < share <= 1):
            raise ValueError(f"expected a share above 0 to 1, and two stages with it, got {share} ({two_stage=})")
        self.size = size = size or DetrSize()
        self.share = share
        self.two_stage = two_stage
        width = size.width
        self.backbone = nn.ModuleList([_Body(backbone), SinePositionEncoding(width)])
        self.input_proj = nn.ModuleList(_projection(channels, width) for channels in backbone.channels)
        for index in range(size.levels - len(backbone.channels)):
            channels = width if index else backbone.channels[-1]
            self.input_proj.append(_projection(channels, width, kernel=3))
        self.transformer = Transformer(size, two_stage=two_stage, sparse=share is not None)
        decoder_layers = size.decoder_layers
        if two_stage:
            helpers = size.encoder_layers - 1 if share is not None and encoder_heads else 0
            count = decoder_layers + 1 + helpers
            self.class_embed = nn.ModuleList(class_head(width, classes) for _ in range(count))
            self.bbox_embed = nn.ModuleList(BoxHead(width) for _ in range(count))
            self.transformer.decoder.refine_with(self.class_embed, self.bbox_embed)
            if helpers:
                asked = decoder_layers + 1
                self.transformer.encoder.give_heads([*self.class_embed][asked:], [*self.bbox_embed][asked:])
        else:
            self.query_embed = nn.Embedding(size.queries, 2 * width)
            self.class_embed = nn.ModuleList([class_head(width, classes)] * decoder_layers)
            self.bbox_embed = nn.ModuleList([BoxHead(width, side_bias=-2.0)] * decoder_layers)  # 12 % of the picture

    @property
    def body(self) -> Backbone:
        """The backbone itself."""
        named = self.backbone[0]
        assert isinstance(named, _Body)
        return named.body

    def forward(
        self,
        pictures: Tensor,
        padding: Tensor | None = None,
        *,
        pyramid: MaskPyramid = EVERYWHERE,
        allowed: Tensor | None = None,
        all_heads: bool | None = None,
    ) -> DetrOutput:
        """Detect.

        Args:
            pictures: [B, 3, H, W], normalised as the backbone wants it.
            padding: [B, H, W], true beyond a picture's edge; ``None`` where pictures fill the batch.
            pyramid: an objectness mask; it needs sides that are multiples of its cells. Where it is zero the backbone
                sees nothing.
            allowed: [B, S], true where tokens may be refined and queries start; ``None`` is where the mask is not zero.
            all_heads: also what only losses need; ``None`` is in training.
        """
        all_heads = self.training if all_heads is None else all_heads
        maps, paddings = self._maps(pictures, padding, pyramid)
        shapes = tuple((level.shape[2], level.shape[3]) for level in maps)
        tokens = torch.cat([level.flatten(2).transpose(1, 2) for level in maps], dim=1)
        beyond = torch.cat([level.flatten(1) for level in paddings], dim=1)
        positions = torch.cat(
            [
                self.backbone[1](level).flatten(2).transpose(1, 2) + self.transformer.level_embed[index]
                for index, level in enumerate(paddings)
            ],
            dim=1,
        )
        ratios = valid_ratios(paddings)
        centres = token_centres(shapes, ratios)
        boxes, proposes = token_proposals(shapes, centres, beyond)

        scores, selection = None, None
        allowed = active_tokens(pyramid, shapes) if allowed is None else allowed
        if self.share is not None:
            scores = self.transformer.enc_mask_predictor(self.transformer.describe(tokens + positions, proposes))
            scores = scores.masked_fill(beyond, scores.min())
            selection = select_tokens(scores, None if padding is None else beyond, self.share, allowed)
        elif allowed is not None:
            selection = select_tokens(allowed.to(tokens.dtype), None if padding is None else beyond, 1.0, allowed)
        tokens, encoder = self.transformer.encoder(
            tokens,
            positions,
            centres[:, :, None] * ratios[:, None],
            shapes,
            beyond,
            selection=selection,
            proposals=boxes if all_heads else None,
        )
        return self._decode(
            tokens,
            boxes,
            proposes,
            ratios,
            shapes,
            beyond,
            allowed,
            scores,
            selection,
            encoder,
            all_heads=all_heads,
        )

    def _maps(
        self, pictures: Tensor, padding: Tensor | None, pyramid: MaskPyramid
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Projected maps [B, width, H, W] of all levels, and where each is padding [B, H, W]."""
        if padding is None:
            padding = torch.zeros_like(pictures[:, 0], dtype=torch.bool)
        features: list[Tensor] = self.backbone[0](pictures, pyramid)
        maps = [_project(project, level, pyramid) for project, level in zip(self.input_proj, features, strict=False)]
        for project in self.input_proj[len(features) :]:
            maps.append(_project(project, features[-1] if len(maps) == len(features) else maps[-1], pyramid))
        shown = padding[:, None].float()
        return maps, [F.interpolate(shown, size=level.shape[-2:])[:, 0].bool() for level in maps]

    def _decode(
        self,
        tokens: Tensor,
        boxes: Tensor,
        proposes: Tensor,
        ratios: Tensor,
        shapes: Shapes,
        padding: Tensor,
        allowed: Tensor | None,
        scores: Tensor | None,
        selection: Selection | None,
        encoder: tuple[HeadOutput, ...],
        *,
        all_heads: bool,
    ) -> DetrOutput:
        proposals = None
        if self.two_stage:
            described = self.transformer.describe(tokens, proposes)
            logits = self.class_embed[self.size.decoder_layers](described)
            moved = self.bbox_embed[self.size.decoder_layers](described) + boxes
            if allowed is not None:
                logits = logits.masked_fill(~allowed[..., None], NOTHING)
            proposals = HeadOutput(logits, moved.sigmoid())
            ranking = logits.amax(-1)
            if allowed is not None:
                ranking = torch.where(allowed, ranking, unseen_ranks(logits.shape[1]).to(ranking))
            best = ranking.topk(min(self.size.queries, logits.shape[1]), dim=1).indices
            references = gather(moved.detach(), best).sigmoid()
            places = sines(references * 2 * math.pi, self.size.width // 2).flatten(2)
            positions = self.transformer.pos_trans_norm(self.transformer.pos_trans(places))
            queries = gather(tokens, best)
        else:
            positions, queries = self.query_embed.weight[None].expand(len(tokens), -1, -1).chunk(2, dim=-1)
            references = self.transformer.reference_points(positions).sigmoid()
        heads, attention = self.transformer.decoder(
            queries,
            positions,
            references,
            tokens,
            shapes,
            padding,
            ratios,
            class_heads=self.class_embed,
            box_heads=self.bbox_embed,
            all_heads=all_heads,
        )
        if self.two_stage and allowed is not None:
            # Where the mask leaves fewer tokens than there are queries, the others start from what is not there.
            unseen = ~gather(allowed, best)[..., None]
            heads = tuple(HeadOutput(head.logits.masked_fill(unseen, NOTHING), head.boxes) for head in heads)
        return DetrOutput(
            decoder=heads,
            proposals=proposals,
            encoder=encoder,
            scores=scores,
            attention=attention if scores is not None and all_heads else None,
            kept=None if selection is None else selection.kept,
            padding=padding,
            shapes=tuple(shapes),
            allowed=allowed,
        )


def unseen_ranks(tokens: int) -> Tensor:
    """[tokens]: what a token outside the mask is ranked by, after all others, in their order.

    Those that fill up the queries are seen by the others, so that every engine has to find the same.
    """
    return -1e4 - torch.arange(tokens, dtype=torch.float32)


class _Body(nn.Module):
    """Gives a backbone its published name, ``backbone.0.body``; ``backbone.1`` encodes positions."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.body = backbone
        assert isinstance(backbone, nn.Module)

    def forward(self, pictures: Tensor, pyramid: MaskPyramid = EVERYWHERE) -> list[Tensor]:
        return self.body(pictures, pyramid)


def _project(layers: nn.Module, level: Tensor, pyramid: MaskPyramid) -> Tensor:
    """The convolution and, outside the mask of zeros, the norm."""
    assert isinstance(layers, nn.Sequential)
    convolution, norm = layers
    projected: Tensor = norm(pyramid.apply(convolution(level)))
    return projected


def _projection(channels: int, width: int, *, kernel: int = 1) -> nn.Sequential:
    """A level's channels -> ``width``; a kernel of 3 halves its rows and columns."""
    convolution = nn.Conv2d(channels, width, kernel, stride=1 if kernel == 1 else 2, padding=kernel // 2)
    nn.init.xavier_uniform_(convolution.weight)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return nn.Sequential(convolution, nn.GroupNorm(_GROUPS, width))
