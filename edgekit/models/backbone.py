"""What a detection transformer asks of its backbone (Deformable DETR, arXiv 2010.04159, section 4.1)."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from edgekit.models.masking import MaskPyramid

STRIDES = (8, 16, 32)
"""Of the maps that every backbone puts out, in pixels of its picture."""

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of ImageNet's RGB values 0..255, by which most published backbones want theirs normalised."""

EVERYWHERE = MaskPyramid(None)
"""No mask."""


class Backbone(Protocol):
    """An ``nn.Module`` that turns pictures into the maps of ``STRIDES``."""

    channels: tuple[int, ...]
    """Of each map, finest first."""

    pixel_mean: tuple[float, float, float]
    """Subtracted from the RGB values 0..255 of a picture."""

    pixel_std: tuple[float, float, float]
    """Divides the result."""

    def forward(self, pictures: Tensor, pyramid: MaskPyramid = EVERYWHERE) -> list[Tensor]:
        """[B, 3, H, W] -> for each stride s a map [B, channels, ceil(H/s), ceil(W/s)], finest first.

        Maps are zero outside the mask, which needs sides that are multiples of 32.
        """

    def __call__(self, pictures: Tensor, pyramid: MaskPyramid = EVERYWHERE) -> list[Tensor]:
        """``forward``, with the module's hooks."""

    def stages(self) -> list[nn.Module]:
        """The stem and what follows, in the order of the data: what fine-tuning may freeze the first of."""

    def freeze_stem(self) -> None:
        """Take the layers that fine-tuning leaves as they are out of training: no gradient reaches their weights."""
