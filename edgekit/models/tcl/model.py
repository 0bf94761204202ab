"""The whole of TCL (arXiv 2212.00785): two frozen encoders, the masker, and the temperatures of its losses.

Names of parts are the published checkpoint's. B pictures, N texts, D embedding, H x W a picture's size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.models.tcl.clip import ClipImageEncoder, TextEncoder
from edgekit.models.tcl.masker import Masker
from edgekit.models.tcl.mobile import MobileImageEncoder
from edgekit.models.tcl.spec import TclSpec, VitSpec

LARGEST_SCALE = 100.0
"""Of the similarities before a softmax, as in CLIP (arXiv 2103.00020, section 2.5)."""


class Temperature(nn.Module):
    """A learnable scale of similarities, from 1 / .07."""

    def __init__(self) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, similarity: Tensor) -> Tensor:
        """Any shape -> the same."""
        return similarity * self.logit_scale.exp().clamp(max=LARGEST_SCALE)


class TCL(nn.Module):
    """Pictures [B, 3, H, W] of RGB values 0..255, in float32, and texts, to masks.

    In training mode the encoders stay in evaluation: they are frozen, but for what :meth:`phase` opens.
    """

    def __init__(self, spec: TclSpec) -> None:
        super().__init__()
        self.spec = spec
        self.clip_text_encoder = TextEncoder(spec.text, spec.embedding, quick_gelu=spec.quick_gelu)
        self.clip_image_encoder: ClipImageEncoder | MobileImageEncoder
        if isinstance(spec.image, VitSpec):
            self.clip_image_encoder = ClipImageEncoder(spec.image, spec.embedding, quick_gelu=spec.quick_gelu)
        else:
            self.clip_image_encoder = MobileImageEncoder(spec.image, spec.embedding)
        self.masker = Masker(self.clip_image_encoder, up_blocks=spec.up_blocks, separable=spec.separable)
        self.tcli_loss, self.tclf_loss = Temperature(), Temperature()
        self.phase("decoder")

    @property
    def stride(self) -> int:
        """Pixels from one cell of the encoder's map to the next; sides of pictures are multiples of it."""
        return self.clip_image_encoder.stride

    def train(self, mode: bool = True) -> Self:
        """As any module, except that the encoders stay in evaluation; nothing in them behaves differently but norms."""
        super().train(mode)
        self.clip_image_encoder.eval()
        self.clip_text_encoder.eval()
        return self

    def phase(self, name: str) -> None:
        """Choose what learns.

        ``align``: the text encoder and the image encoder's last layer and projection, which are to meet; only for a
        small model, CLIP has done that. ``decoder``: of the masker all but its copy of the last layer, and the
        temperatures. ``masker``: that copy, too.
        """
        self.requires_grad_(False)
        if name == "align":
            self.clip_text_encoder.requires_grad_(True)
            self.clip_image_encoder.clip_proj.requires_grad_(True)
            if isinstance(self.clip_image_encoder, MobileImageEncoder):
                self.clip_image_encoder.neck.requires_grad_(True)
            self.tcli_loss.requires_grad_(True)
            return
        for part in (self.masker, self.tcli_loss, self.tclf_loss):
            part.requires_grad_(True)
        if name == "decoder":
            self.masker.image_encoder.backbone.requires_grad_(False)

    def learning(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters of what learns now."""
        return ((name, value) for name, value in self.named_parameters() if value.requires_grad)

    def normalise(self, pictures: Tensor) -> Tensor:
        """[B, 3, H, W] of values 0..255 -> as the image encoder wants them."""
        encoder = self.clip_image_encoder
        mean, std = (
            pictures.new_tensor(values, dtype=torch.float32) for values in (encoder.pixel_mean, encoder.pixel_std)
        )
        return (pictures - mean[:, None, None]) / std[:, None, None]

    def cells(self, pictures: Tensor) -> tuple[int, int]:
        """Rows and columns of the encoder's map of ``pictures`` [B, 3, H, W]."""
        return pictures.shape[-2] // self.stride, pictures.shape[-1] // self.stride

    def embed_masked(self, normalised: Tensor, masks: Tensor) -> Tensor:
        """The embeddings [B, D] of pictures outside whose masks [B, 1, h, w] everything is 0, their mean colour."""
        enlarged = F.interpolate(masks, size=normalised.shape[-2:], mode="nearest")
        return self.clip_image_encoder.pooled(self.clip_image_encoder.features(enlarged * normalised))
