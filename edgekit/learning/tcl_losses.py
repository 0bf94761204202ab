"""TCL's losses (arXiv 2212.00785, section 3.3 and its published configuration), over all pairs of a batch.

B pictures, N texts (those of all processes; a process's own are ``offset`` to ``offset + B``), D embedding, h x w a
mask's size. All means are over everything, as published.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekit.learning import distributed
from edgekit.learning.gathering import gather_with_gradient
from edgekit.models.tcl.masker import COSINE_EPS, Masks
from edgekit.models.tcl.model import TCL, Temperature

POOL_EPS = 1e-6
"""Added to the area that a masked mean is divided by."""

TCL_LOSSES = ("align", "tcl_v", "tcl_f", "area", "negative_area", "smooth_map", "smooth_masks")
"""In the order of the log; the first belongs to the phase in which a small model's encoders learn to meet."""


@dataclass(frozen=True, kw_only=True)
class TclWeights:
    """What each loss is multiplied by, and the areas that masks should have; all as published."""

    contrast: float = 0.1
    """Of TCL_v and TCL_f."""

    area: float = 0.4
    smoothness: float = 1.0
    positive_area: float = 0.4
    """Share of a picture that a mask of its own text should cover on average."""

    negative_area: float = 0.0
    """The same of other pictures' texts."""


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Which texts are true of which pictures: a picture's own, and those that are equal to any of its captions.

    Few short captions often agree; to call an equal one wrong would teach nothing.
    """

    by_picture: Tensor
    """[B, N] bool: text n is true of this process's picture b."""

    by_text: Tensor
    """[B, N] bool: this process's text b is true of picture n."""

    offset: int = 0
    """Where this process's texts begin among all."""


def find_matches(tokens: Tensor, captions: Tensor) -> Matches:
    """From the tokens of one text a picture [B, L], and of all its captions [B, K, L], padded with rows of zeros."""
    texts, known = gather_with_gradient(tokens), gather_with_gradient(captions)
    offset = distributed.rank() * len(tokens)
    by_picture = (captions[:, :, None] == texts).all(dim=-1).any(dim=1)
    by_text = (known[None] == tokens[:, None, None]).all(dim=-1).any(dim=-1)
    rows = torch.arange(len(tokens), device=tokens.device)
    by_picture[rows, rows + offset] = by_text[rows, rows + offset] = True
    return Matches(by_picture=by_picture, by_text=by_text, offset=offset)


def contrast(similarity: Tensor, true: Tensor) -> Tensor:
    """Cross-entropy of each row of ``similarity`` [B, N], already scaled, against what is ``true`` of it, [B, N] bool.

    With one match a row this is InfoNCE; several have equal parts.
    """
    target = true.to(similarity.dtype)
    return F.cross_entropy(similarity, target / target.sum(dim=1, keepdim=True))


def info_nce(pictures: Tensor, texts: Tensor, scale: Temperature, matches: Matches) -> Tensor:
    """InfoNCE both ways (arXiv 2103.00020, section 2.3) of embeddings [B, D] of the pictures and their texts."""
    pictures, texts = (F.normalize(values, dim=-1, eps=COSINE_EPS) for values in (pictures, texts))
    by_picture = scale(pictures @ gather_with_gradient(texts).T)
    by_text = scale(texts @ gather_with_gradient(pictures).T)
    return (contrast(by_picture, matches.by_picture) + contrast(by_text, matches.by_text)) / 2


def extended_info_nce(pooled: Tensor, texts: Tensor, scale: Temperature, matches: Matches) -> Tensor:
    """The same where a picture has another embedding for each text (TCL_f).

    Args:
        pooled: [B, N, D], of each picture under the mask of each text.
        texts: [B, D], this process's.
        scale: the temperature.
        matches: who belongs to whom.
    """
    pooled, texts = (F.normalize(values, dim=-1, eps=COSINE_EPS) for values in (pooled, texts))
    by_picture = scale(torch.einsum("bnd,nd->bn", pooled, gather_with_gradient(texts)))
    # A text's similarities to all pictures, each under that text's mask, stand in the column of every process's rows.
    columns = slice(matches.offset, matches.offset + len(texts))
    by_text = gather_with_gradient(by_picture)[:, columns].T
    return (contrast(by_picture, matches.by_picture) + contrast(by_text, matches.by_text)) / 2


def masked_mean(embedding: Tensor, masks: Tensor) -> Tensor:
    """A map [B, D, h, w] averaged under masks [B, N, h, w] of any softness -> [B, N, D]."""
    weights = masks / (masks.sum(dim=(2, 3), keepdim=True) + POOL_EPS)
    return torch.einsum("bdhw,bnhw->bnd", embedding, weights)


def total_variation(maps: Tensor) -> Tensor:
    """Mean step between neighbours along each row of [B, C, h, w], and along each column, added."""
    across, down = maps[..., 1:] - maps[..., :-1], maps[..., 1:, :] - maps[..., :-1, :]
    return across.abs().mean() + down.abs().mean()


def area_losses(masks: Tensor, matches: Matches, weights: TclWeights) -> dict[str, Tensor]:
    """How far the mean area of soft masks [B, N, h, w] is from what it should be: own texts, and wrong ones."""
    rows = torch.arange(len(masks), device=masks.device)
    areas = masks.mean(dim=(2, 3))  # [B, N]
    losses = {"area": (areas[rows, rows + matches.offset].mean() - weights.positive_area).abs()}
    if not bool(matches.by_picture.all()):
        losses["negative_area"] = (areas[~matches.by_picture].mean() - weights.negative_area).abs()
    return losses


def tcl_losses(
    model: TCL,
    pictures: Tensor,
    tokens: Tensor,
    *,
    weights: TclWeights,
    matches: Matches,
    noise: Tensor | None = None,
) -> dict[str, Tensor]:
    """The losses of a batch, weighted: their sum is minimised.

    Args:
        model: in the phase ``decoder`` or ``masker``.
        pictures: [B, 3, H, W] of values 0..255, sides multiples of the model's stride.
        tokens: [B, context], a text of each picture.
        weights: of the losses.
        matches: from :func:`find_matches`.
        noise: [B, N, h, w] for the hard masks; drawn if ``None``.
    """
    normalised = model.normalise(pictures)
    with torch.no_grad():
        texts = model.clip_text_encoder(tokens)
        features = model.clip_image_encoder.features(normalised)
    masks: Masks = model.masker(features, *model.cells(pictures), gather_with_gradient(texts), noise=noise)
    rows = torch.arange(len(pictures), device=pictures.device)
    own = masks.hard[rows, rows + matches.offset].unsqueeze(1)  # [B, 1, h, w]
    losses = {
        "tcl_v": weights.contrast * info_nce(model.embed_masked(normalised, own), texts, model.tcli_loss, matches),
        "tcl_f": weights.contrast
        * extended_info_nce(masked_mean(masks.embedding, masks.soft), texts, model.tclf_loss, matches),
        "smooth_map": weights.smoothness * total_variation(masks.embedding),
        "smooth_masks": weights.smoothness * total_variation(masks.soft),
    }
    areas = area_losses(masks.soft, matches, weights)
    return losses | {name: weights.area * value for name, value in areas.items()}


def align_losses(model: TCL, pictures: Tensor, tokens: Tensor, *, matches: Matches) -> dict[str, Tensor]:
    """The loss of the phase ``align``: whole pictures against their texts, as CLIP learnt. Arguments as above."""
    with torch.no_grad():
        features = model.clip_image_encoder.features(model.normalise(pictures))
    embedding = model.clip_image_encoder.pooled(features)
    return {"align": info_nce(embedding, model.clip_text_encoder(tokens), model.tcli_loss, matches)}
