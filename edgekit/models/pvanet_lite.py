"""The trunk of PVANet-lite: a GoogLeNet without C.ReLU and without shortcuts.

It was published beside PVANet 9.0 (https://github.com/sanghoon/pva-faster-rcnn, ``models/pvanet_obsolete/lite``) and
stands in neither paper. Every convolution has a bias, BatchNorm, Scale and ReLU. Where a block halves the resolution,
its 3x3 convolutions do so, not its 1x1 as in the full network.

B batch, H x W input size, multiples of 32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from edgekit.models.masking import MaskPyramid
from edgekit.models.pvanet_layers import Scale, absorb, batch_norm, fill, max_pool, normalise, scaled


@dataclass(frozen=True, kw_only=True)
class LiteShape:
    """One Inception block."""

    direct: int
    """Channels of the 1x1 branch, behind maxima where the block halves the resolution."""

    three: tuple[int, int]
    """1x1 and 3x3 of the 3x3 branch."""

    five: tuple[int, int]
    """1x1 and both 3x3 of the 5x5 branch."""

    stride: int = 1
    """Of the maxima and of each branch's last 3x3."""


STEM: Mapping[str, tuple[int, int]] = {"conv1": (32, 4), "conv2": (48, 3), "conv3": (96, 3)}
"""Channels and kernel of the first convolutions, each of stride 2 and padding 1."""

BLOCKS: Mapping[str, LiteShape] = {
    "inc3a": LiteShape(direct=96, three=(16, 64), five=(16, 32), stride=2),
    "inc3b": LiteShape(direct=96, three=(16, 64), five=(16, 32)),
    "inc3c": LiteShape(direct=96, three=(16, 64), five=(16, 32)),
    "inc3d": LiteShape(direct=96, three=(16, 64), five=(16, 32)),
    "inc3e": LiteShape(direct=96, three=(16, 64), five=(16, 32)),
    "inc4a": LiteShape(direct=128, three=(32, 96), five=(16, 32), stride=2),
    "inc4b": LiteShape(direct=128, three=(32, 96), five=(16, 32)),
    "inc4c": LiteShape(direct=128, three=(32, 96), five=(16, 32)),
    "inc4d": LiteShape(direct=128, three=(32, 96), five=(16, 32)),
    "inc4e": LiteShape(direct=128, three=(32, 96), five=(16, 32)),
}
"""Channels of the network of full width; the names are the published ones."""

FEATURES = ("conv3", "inc3e", "inc4e")
"""The maps at strides 8, 16 and 32 that the hyper feature is made of."""


class LiteConv(nn.Conv2d):
    """Convolution with bias, BatchNorm, Scale and ReLU; the published names of the last are below the first's."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2)
        fill(self)
        self.bn: nn.BatchNorm2d | None = batch_norm(outputs)
        self.scale: Scale | None = Scale(outputs)

    def forward(self, features: Tensor, pyramid: MaskPyramid) -> Tensor:  # type: ignore[override]
        """[B, inputs, H, W] -> [B, outputs, H/stride, W/stride]."""
        return pyramid.apply(normalise(super().forward(features), self.bn, self.scale).relu())

    def fold_norms(self) -> None:
        """See ``edgekit.models.pvanet_layers.fold``."""
        absorb(self, self.bn, self.scale)
        self.bn = self.scale = None


class LiteInception(nn.Module):
    """1x1, 3x3 and 5x5 branches, concatenated."""

    def __init__(self, inputs: int, shape: LiteShape) -> None:
        super().__init__()
        self.pools = shape.stride > 1
        self.conv1 = LiteConv(inputs, shape.direct, 1)
        self.conv3_1 = LiteConv(inputs, shape.three[0], 1)
        self.conv3_2 = LiteConv(shape.three[0], shape.three[1], 3, stride=shape.stride)
        self.conv5_1 = LiteConv(inputs, shape.five[0], 1)
        self.conv5_2 = LiteConv(shape.five[0], shape.five[1], 3)
        self.conv5_3 = LiteConv(shape.five[1], shape.five[1], 3, stride=shape.stride)

    def forward(self, features: Tensor, pyramid: MaskPyramid) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H/stride, W/stride]."""
        direct = self.conv1(max_pool(features, pyramid) if self.pools else features, pyramid)
        three = self.conv3_2(self.conv3_1(features, pyramid), pyramid)
        five = self.conv5_3(self.conv5_2(self.conv5_1(features, pyramid), pyramid), pyramid)
        return torch.cat([direct, three, five], dim=1)


class LiteTrunk(nn.Module):
    """conv1 to inc4e: 0.70 M weights at full width."""

    def __init__(self, *, width: float = 1.0) -> None:
        """Make the trunk.

        Raises:
            ValueError: ``width`` is not a positive number.
        """
        super().__init__()
        sizes, inputs = {}, 3
        for name, (channels, kernel) in STEM.items():
            sizes[name] = scaled(channels, width)
            self.add_module(name, LiteConv(inputs, sizes[name], kernel, stride=2))
            inputs = sizes[name]
        for name, full in BLOCKS.items():
            shape = replace(
                full,
                direct=scaled(full.direct, width),
                three=(scaled(full.three[0], width), scaled(full.three[1], width)),
                five=(scaled(full.five[0], width), scaled(full.five[1], width)),
            )
            self.add_module(name, LiteInception(inputs, shape))
            inputs = sizes[name] = shape.direct + shape.three[1] + shape.five[1]
        self.channels = tuple(sizes[name] for name in FEATURES)
        """Of what :meth:`forward` returns."""

    def forward(self, image: Tensor, pyramid: MaskPyramid) -> tuple[Tensor, Tensor, Tensor]:
        """[B, 3, H, W] -> conv3 [B, 96, H/8, W/8], inc3e [B, 192, H/16, W/16], inc4e [B, 256, H/32, W/32]."""
        features, maps = pyramid.apply(image), {}
        for name in (*STEM, *BLOCKS):
            features = self.get_submodule(name)(features, pyramid)
            maps[name] = features
        fine, middle, coarse = (maps[name] for name in FEATURES)
        return fine, middle, coarse
