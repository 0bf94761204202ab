"""OMG, the objectness mask generation network in front of a detector (arXiv 2002.01609).

The paper publishes no layers, so this design is ours: MobileNetV2 on a half-size image, with the residual blocks that
matter least left out and one stride more, then a small top-down path back to one score per 16x16-pixel cell. Every
trunk layer has the shape of a MobileNetV2 layer, so ImageNet weights start it. 0.058 GMAC at 320x320.

B batch; at a 320x320 input the maps are 20x20, 10x10 and 5x5.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.models.masking import ConvBNReLU6, MaskPyramid
from edgekit.models.mobilenetv2 import BLOCKS, STEM_CHANNELS, InvertedResidual

STRIDE_8 = (0, 1, 3, 4)
STRIDE_16 = (6, 7)
STRIDE_32 = (10, 11, 12)
"""Which of MobileNetV2's blocks form each stage (of the half-size image)."""

NECK_CHANNELS = 48


class OMG(nn.Module):
    """One objectness logit for every 16x16-pixel cell."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBNReLU6(3, STEM_CHANNELS, 3, stride=2)
        self.stride_8 = nn.ModuleList(InvertedResidual(BLOCKS[index]) for index in STRIDE_8)
        self.stride_16 = nn.ModuleList(InvertedResidual(BLOCKS[index]) for index in STRIDE_16)
        self.stride_32 = nn.ModuleList(
            InvertedResidual(replace(BLOCKS[index], stride=2) if index == STRIDE_32[0] else BLOCKS[index])
            for index in STRIDE_32
        )
        self.lateral_8 = ConvBNReLU6(BLOCKS[STRIDE_8[-1]].outputs, NECK_CHANNELS, 1, activation=False)
        self.lateral_16 = ConvBNReLU6(BLOCKS[STRIDE_16[-1]].outputs, NECK_CHANNELS, 1, activation=False)
        self.lateral_32 = ConvBNReLU6(BLOCKS[STRIDE_32[-1]].outputs, NECK_CHANNELS, 1, activation=False)
        self.smooth = ConvBNReLU6(NECK_CHANNELS, NECK_CHANNELS, 3, groups=NECK_CHANNELS)
        self.mix = ConvBNReLU6(NECK_CHANNELS, NECK_CHANNELS, 1)
        self.predict = nn.Conv2d(NECK_CHANNELS, 1, 1)
        nn.init.normal_(self.predict.weight, std=0.01)
        nn.init.zeros_(self.predict.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        """[B, 3, H, W] RGB in [-1, 1) -> objectness logits [B, 1, H/16, W/16]; H and W are multiples of 64."""
        logits: Tensor = self.predict(self.features(image)[0])
        return logits

    def features(self, image: Tensor) -> list[Tensor]:
        """What :meth:`forward` predicts from [B, 48, H/16, W/16], and the coarser map above it [B, 48, H/32, W/32]."""
        everything = MaskPyramid(None)
        features = self.stem(F.avg_pool2d(image, kernel_size=2, stride=2), everything)
        maps = []
        for stage in (self.stride_8, self.stride_16, self.stride_32):
            for block in stage:
                features, _ = block(features, everything)
            maps.append(features)
        top = self.lateral_32(maps[2], everything)
        top = self.lateral_16(maps[1], everything) + F.interpolate(top, scale_factor=2.0, mode="nearest")
        fine = self.lateral_8(maps[0], everything) + F.interpolate(top, scale_factor=2.0, mode="nearest")
        return [self.mix(self.smooth(fine, everything), everything), top]
