"""TCL's grounding decoder (arXiv 2212.00785, section 3.2 and appendix): gated convolutions at doubled resolution.

Each gate starts at 0, so that at first the decoder only enlarges the map that it is given, and what CLIP knows about
each patch is not lost. Names of layers are the published weights'. B pictures, C channels, h x w a map's size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MapNorm(nn.LayerNorm):
    """LayerNorm over the channels of each cell (eps 1e-5)."""

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, h, w] -> the same shape."""
        return super().forward(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Gate(nn.Module):
    """A factor tanh(gate)."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        """Any shape -> the same."""
        return torch.tanh(self.gate) * features


class GatedConvolution(nn.Module):
    """Norm, GELU, a 3x3 convolution (or a depthwise one and a 1x1), gate."""

    def __init__(self, channels: int, *, separable: bool) -> None:
        super().__init__()
        self.norm = MapNorm(channels)
        self.conv: nn.Module
        if separable:
            self.conv = nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1, groups=channels), nn.Conv2d(channels, channels, 1)
            )
        else:
            self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.gate = Gate()

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, h, w] -> the same shape."""
        output: Tensor = self.gate(self.conv(F.gelu(self.norm(features))))
        return output


class UpBlock(nn.Module):
    """Each cell becomes four alike, then two gated convolutions are added."""

    def __init__(self, channels: int, *, separable: bool) -> None:
        super().__init__()
        self.conv = GatedConvolution(channels, separable=separable)
        self.conv2 = GatedConvolution(channels, separable=separable)

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, 2h, 2w]."""
        features = F.interpolate(features, scale_factor=2.0, mode="nearest")
        features = features + self.conv(features)
        output: Tensor = features + self.conv2(features)
        return output


class GroundingDecoder(nn.Module):
    """``blocks`` of them: 21,242,884 parameters in the published one, of two blocks of 768 channels."""

    def __init__(self, channels: int, blocks: int, *, separable: bool) -> None:
        super().__init__()
        self.net = nn.Sequential(*(UpBlock(channels, separable=separable) for _ in range(blocks)))

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, 2^blocks h, 2^blocks w]."""
        output: Tensor = self.net(features)
        return output
