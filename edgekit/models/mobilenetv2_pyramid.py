"""MobileNetV2 1.0 (arXiv 1801.04381) as a transformer's backbone, for detectors of a board's size.

Each map is the last block's output at its resolution: a linear bottleneck, where the paper's section 3.2 has the
information. It has a third to a sixth of the channels of the expansions beside it, of which SSDLite reads one, and
the transformer's input projections cost as much less; nor is the last 1x1 convolution to 1280 channels needed.
B batch, H x W input size.
"""

from __future__ import annotations

from typing import Self

from torch import Tensor, nn

from edgekit.models.backbone import EVERYWHERE
from edgekit.models.masking import ConvBNReLU6, MaskPyramid
from edgekit.models.mobilenetv2 import BLOCKS, STEM_CHANNELS, InvertedResidual

LAST_BLOCKS = (5, 12, 16)
"""Indices into ``BLOCKS`` of the last block at each of the strides 8, 16 and 32."""

STEM_BLOCKS = 3
"""So many blocks at the strides 2 and 4."""


class MobileNetV2Pyramid(nn.Module):
    """1,811,712 parameters, of which 31,552 are the batch norms'. Weights have the names of ``MobileNetV2``'s.

    Args:
        frozen_norms: batch norms keep statistics, scale and shift in training, as ``FrozenBatchNorm2d`` does.
    """

    pixel_mean, pixel_std = (128.0, 128.0, 128.0), (128.0, 128.0, 128.0)

    def __init__(self, *, frozen_norms: bool = True) -> None:
        super().__init__()
        self.channels: tuple[int, ...] = tuple(BLOCKS[index].outputs for index in LAST_BLOCKS)
        self.frozen_norms = frozen_norms
        self.stem = ConvBNReLU6(3, STEM_CHANNELS, 3, stride=2)
        self.blocks = nn.ModuleList(InvertedResidual(shape) for shape in BLOCKS)
        if frozen_norms:
            for norm in self._norms():
                norm.requires_grad_(False)
        self.train()

    def forward(self, pictures: Tensor, pyramid: MaskPyramid = EVERYWHERE) -> list[Tensor]:
        """[B, 3, H, W] in [-1, 1), as its ImageNet weights expect, -> maps of the strides 8, 16 and 32.

        Map k is [B, channels[k], ceil(H/s), ceil(W/s)] for its stride s; the mask acts as in ``MobileNetV2``.
        """
        features = self.stem(pictures, pyramid)
        maps = []
        for index, block in enumerate(self.blocks):
            features, _ = block(features, pyramid)
            if index in LAST_BLOCKS:
                maps.append(features)
        return maps

    def train(self, mode: bool = True) -> Self:
        """As any module, except that frozen batch norms stay in evaluation."""
        super().train(mode)
        if self.frozen_norms:
            for norm in self._norms():
                norm.eval()
        return self

    def stages(self) -> list[nn.Module]:
        """The stem and the blocks."""
        return [self.stem, *self.blocks]

    def freeze_stem(self) -> None:
        """No gradients for what lies before stride 8; batch norms there that are not frozen go on measuring."""
        for part in (self.stem, *self.blocks[:STEM_BLOCKS]):
            part.requires_grad_(False)

    def _norms(self) -> list[nn.BatchNorm2d]:
        # nn.BatchNorm2d in evaluation rather than another class: folding, in training and in export, knows that one.
        return [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]
