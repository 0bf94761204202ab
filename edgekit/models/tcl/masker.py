"""TCL's masker, called grounder in the paper (arXiv 2212.00785, section 3.2): a text and a picture to a mask.

B pictures, N texts, C channels, D embedding, h x w the mask's size: a quarter of the picture's.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.models.tcl.clip import Block, ClipImageEncoder, Projection, to_map
from edgekit.models.tcl.decoder import GroundingDecoder
from edgekit.models.tcl.mobile import MobileImageEncoder
from edgekit.segmentation.scores import COSINE_EPS as COSINE_EPS


@dataclass(frozen=True, kw_only=True)
class Masks:
    """What the masker says of every picture and every text."""

    soft: Tensor
    """[B, N, h, w] in 0..1."""

    hard: Tensor
    """[B, N, h, w] of zeros and ones, drawn with the probabilities ``soft``; gradients are those of the draw's
    sigmoid (straight-through)."""

    embedding: Tensor
    """[B, D, h, w], not normalised."""


class Sim2Mask(nn.Module):
    """Similarity to mask: sigmoid(w s + b), both learnable, from 10 and -2.5 (a cosine of .25 is a half)."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(10.0))
        self.b = nn.Parameter(torch.tensor(-2.5))

    def forward(self, similarity: Tensor) -> Tensor:
        """Cosines of any shape -> logits of the same shape."""
        return similarity * self.w + self.b


class LastBlock(nn.Module):
    """A trainable copy of CLIP's last block, local, under the published name: ``transformer.resblocks.11``."""

    def __init__(self, encoder: ClipImageEncoder) -> None:
        super().__init__()
        blocks = encoder.clip_visual.transformer.resblocks
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleDict({str(len(blocks) - 1): copy.deepcopy(blocks[-1])})

    def forward(self, features: Tensor, rows: int, columns: int) -> Tensor:
        """Tokens [B, 1 + h * w, C] -> [B, C, h, w]."""
        (block,) = self.transformer.resblocks.values()  # type: ignore[operator]
        assert isinstance(block, Block)
        return to_map(block.local(features), rows, columns)


class LastLayer(nn.Module):
    """A trainable copy of the small encoder's last layer."""

    def __init__(self, encoder: MobileImageEncoder) -> None:
        super().__init__()
        self.neck = copy.deepcopy(encoder.neck)

    def forward(self, features: Tensor, rows: int, columns: int) -> Tensor:
        """[B, 1280, h, w] -> [B, C, h, w]; ``rows`` and ``columns`` are its h and w."""
        assert features.shape[-2:] == (rows, columns)
        output: Tensor = self.neck(features)
        return output


class MaskerImageEncoder(nn.Module):
    """The copy of the last layer, then the decoder and a copy of the projection."""

    def __init__(self, encoder: ClipImageEncoder | MobileImageEncoder, *, up_blocks: int, separable: bool) -> None:
        super().__init__()
        self.backbone = LastBlock(encoder) if isinstance(encoder, ClipImageEncoder) else LastLayer(encoder)
        self.decoder = nn.Sequential()
        self.decoder.add_module("decoder", GroundingDecoder(encoder.channels, up_blocks, separable=separable))
        self.decoder.add_module("image_proj", copy.deepcopy(encoder.clip_proj))

    def forward(self, features: Tensor, rows: int, columns: int) -> Tensor:
        """The image encoder's features -> [B, D, h, w]."""
        output: Tensor = self.decoder(self.backbone(features, rows, columns))
        return output


class Masker(nn.Module):
    """28,725,510 parameters over CLIP ViT-B/16, of which the first phase trains 21,637,638."""

    def __init__(self, encoder: ClipImageEncoder | MobileImageEncoder, *, up_blocks: int, separable: bool) -> None:
        super().__init__()
        self.image_encoder = MaskerImageEncoder(encoder, up_blocks=up_blocks, separable=separable)
        self.sim2mask = Sim2Mask()

    def start_from(self, encoder: ClipImageEncoder | MobileImageEncoder) -> None:
        """Take over what ``encoder`` has learnt: copies of its last layer and its projection, again."""
        self.image_encoder.backbone.load_state_dict(
            (LastBlock(encoder) if isinstance(encoder, ClipImageEncoder) else LastLayer(encoder)).state_dict()
        )
        projection = self.image_encoder.decoder.get_submodule("image_proj")
        assert isinstance(projection, Projection)
        projection.load_state_dict(encoder.clip_proj.state_dict())

    def logits(self, embedding: Tensor, texts: Tensor) -> Tensor:
        """A map [B, D, h, w] and texts [N, D] -> how well each cell fits each text, [B, N, h, w]."""
        output: Tensor = self.sim2mask(cosine_map(embedding, texts))
        return output

    def forward(
        self, features: Tensor, rows: int, columns: int, texts: Tensor, *, noise: Tensor | None = None
    ) -> Masks:
        """Masks of every pair.

        Args:
            features: the image encoder's, of a picture of ``rows`` x ``columns`` cells.
            rows: of ``features``.
            columns: likewise.
            texts: [N, D], of any length.
            noise: [B, N, h, w] from :func:`logistic_noise`; drawn here if ``None``.
        """
        embedding = self.image_encoder(features, rows, columns)
        logits = self.logits(embedding, texts)
        draw = torch.sigmoid(logits + (logistic_noise(logits) if noise is None else noise))
        hard = (draw > 0.5).to(draw.dtype)
        return Masks(soft=torch.sigmoid(logits), hard=hard - draw.detach() + draw, embedding=embedding)


def cosine_map(embedding: Tensor, texts: Tensor) -> Tensor:
    """[B, D, h, w] and [N, D] -> cosines [B, N, h, w] in -1..1."""
    cells, words = F.normalize(embedding, dim=1, eps=COSINE_EPS), F.normalize(texts, dim=-1, eps=COSINE_EPS)
    return torch.einsum("bdhw,nd->bnhw", cells, words)


def logistic_noise(like: Tensor) -> Tensor:
    """The difference of two Gumbel variables for each element (arXiv 1611.01144, section 2; temperature 1)."""
    uniform = torch.rand_like(like, dtype=torch.float32)
    # 2^-24 from either end: a draw of exactly 0 has no finite logarithm.
    return torch.logit(uniform, eps=2.0**-24).to(like.dtype)
