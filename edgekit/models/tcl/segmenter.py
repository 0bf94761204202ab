"""From a picture and names of things to a map that says which thing is where (arXiv 2212.00785, section 4.1).

N names, D embedding, H x W the picture's size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from edgekit.errors import UsageError
from edgekit.models.tcl.masker import cosine_map
from edgekit.models.tcl.model import TCL
from edgekit.models.tcl.pamr import refine
from edgekit.models.tcl.prompts import embed_names
from edgekit.models.tcl.spec import VitSpec
from edgekit.models.tcl.tokenizer import Tokenizer
from edgekit.models.tcl.windows import padding, scaled_size, slide
from edgekit.segmentation.prompts import BACKGROUND as BACKGROUND
from edgekit.segmentation.scores import CLIP_CENTRE, CLIP_SLOPE

BACKGROUND_REFINED, BACKGROUND_PLAIN = 0.4, 0.5
"""Scores that a name must exceed, with PAMR, which evens masks out, and without."""


@dataclass(frozen=True, kw_only=True)
class SegmentOptions:
    """How pictures are segmented; the defaults are the published evaluation's."""

    templates: str = "custom"
    """Which sentences names are put into (``edgekit.models.tcl.prompts.TEMPLATES``)."""

    pamr: bool = True
    """Whether masks are refined along colours."""

    background: float | None = None
    """Score from which a name wins over the background; ``None``: .4 with PAMR, .5 without."""

    clip_share: float = 0.3
    """Part of CLIP's own map in a score."""

    short_side: int = 448
    """Pixels to which the shorter side of a picture is scaled."""

    long_side: int = 2048
    """Most pixels of the longer one."""

    window: int = 448
    """Side of the windows in which a picture is seen."""

    stride: int = 224
    """Pixels from one window to the next."""

    def __post_init__(self) -> None:
        if not 0 <= self.clip_share <= 1:
            raise UsageError(f"the part of CLIP's own map is between 0 and 1, got {self.clip_share:g}")
        if self.background is not None and not 0 <= self.background <= 1:
            raise UsageError(f"the background's score is between 0 and 1, got {self.background:g}")
        if not 0 < self.stride <= self.window or self.short_side < 1 or self.long_side < self.short_side:
            raise UsageError(
                "windows need 0 < stride <= window, and sides 0 < short <= long, "
                f"got window {self.window}, stride {self.stride}, sides {self.short_side} and {self.long_side}"
            )

    @property
    def background_score(self) -> float:
        """The score that a name must exceed."""
        if self.background is not None:
            return self.background
        return BACKGROUND_REFINED if self.pamr else BACKGROUND_PLAIN


SMALL_OPTIONS = SegmentOptions(
    templates="photo", pamr=True, background=0.5, clip_share=0.0, short_side=224, long_side=448, window=448, stride=224
)
"""For a small model: the one sentence of its captions, pictures in the size that it learnt from, whole."""


def options_for(model: TCL) -> SegmentOptions:
    """How pictures are segmented by ``model`` if nobody says otherwise: as published, or as suits a small one."""
    return SegmentOptions() if isinstance(model.spec.image, VitSpec) else SMALL_OPTIONS


def changed(options: SegmentOptions, **given: Any) -> SegmentOptions:
    """``options`` with those of ``given`` that are not ``None``."""
    return replace(options, **{name: value for name, value in given.items() if value is not None})


@torch.no_grad()
def masks_of(model: TCL, pictures: Tensor, texts: Tensor, *, pamr: bool, clip_share: float) -> Tensor:
    """How well each pixel fits each text.

    Args:
        model: in evaluation mode.
        pictures: [B, 3, H, W] of values 0..255, of any size.
        texts: [N, D].
        pamr: refine along colours, at the masker's resolution.
        clip_share: part of the frozen encoder's own map, 0..1.

    Returns:
        [B, N, H, W] in 0..1.
    """
    height, width = pictures.shape[-2:]
    left, right, top, bottom = padding(height, width, model.stride)
    padded = F.pad(model.normalise(pictures), (left, right, top, bottom))
    features = model.clip_image_encoder.features(padded)
    cells = model.cells(padded)
    masks = torch.sigmoid(model.masker.logits(model.masker.image_encoder(features, *cells), texts))
    if pamr:
        small = F.interpolate(padded, size=masks.shape[-2:], mode="bilinear", align_corners=True)
        masks = refine(small, masks)
    if clip_share:
        known = cosine_map(model.clip_image_encoder.dense(features, *cells), texts)
        known = torch.sigmoid((known - CLIP_CENTRE) * CLIP_SLOPE)
        known = F.interpolate(known, size=masks.shape[-2:], mode="bilinear", align_corners=False)
        masks = clip_share * known + (1 - clip_share) * masks
    masks = F.interpolate(masks, size=padded.shape[-2:], mode="bilinear", align_corners=False)
    return masks[..., top : top + height, left : left + width]


class Segmenter:
    """A model, what to look for, and how."""

    def __init__(self, model: TCL, names: tuple[str, ...], options: SegmentOptions, tokenizer: Tokenizer) -> None:
        """Embed ``names``; if the first is "background", it stands for whatever the others do not fit.

        Raises:
            UsageError: there is nothing to look for, or a name is empty, too long or no text.
        """
        self.model, self.options, self.names = model.eval(), options, names
        self.with_background = names[:1] == (BACKGROUND,)
        wanted = names[1:] if self.with_background else names
        if not wanted:
            raise UsageError("a segmenter needs something to look for besides the background")
        self.texts = embed_names(model, tokenizer, wanted, templates=options.templates)

    @torch.no_grad()
    def scores(self, image: NDArray[np.uint8]) -> Tensor:
        """RGB [H, W, 3] -> [len(names), H, W] in 0..1, in the picture's own size."""
        height, width = image.shape[:2]
        picture = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].to(self.texts.device).float()
        options = self.options
        size = scaled_size(height, width, short=options.short_side, long=options.long_side)
        picture = F.interpolate(picture, size=size, mode="bilinear", align_corners=False)
        found = slide(picture, self._window_scores, window=options.window, stride=options.stride)
        return F.interpolate(found, size=(height, width), mode="bilinear", align_corners=False)[0]

    def segment(self, image: NDArray[np.uint8]) -> NDArray[np.int64]:
        """RGB [H, W, 3] -> the index into ``names`` of each pixel, [H, W]."""
        return self.scores(image).argmax(dim=0).cpu().numpy()

    def whole(self, image: NDArray[np.uint8]) -> int:
        """RGB [H, W, 3] -> the index into ``names`` of what the picture as a whole is, the background aside.

        That is the name whose sentences are nearest to the picture's own embedding: no mask takes part.
        """
        picture = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].to(self.texts.device).float()
        side = self.model.spec.training_side
        picture = F.interpolate(picture, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
        with torch.no_grad():
            encoder = self.model.clip_image_encoder
            embedding = encoder.pooled(encoder.features(self.model.normalise(picture)))
        similarity = F.cosine_similarity(embedding, self.texts, dim=1)
        return int(similarity.argmax()) + int(self.with_background)

    def _window_scores(self, picture: Tensor) -> Tensor:
        masks = masks_of(self.model, picture, self.texts, pamr=self.options.pamr, clip_share=self.options.clip_share)
        if not self.with_background:
            return masks
        background = torch.full_like(masks[:, :1], self.options.background_score)
        return torch.cat([background, masks], dim=1)
