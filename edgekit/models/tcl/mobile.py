"""MobileNetV2 as TCL's image side, for boards: 2.19 M parameters in the trunk, which keeps its ImageNet weights.

Its last stage goes on at stride 16 with dilated kernels (arXiv 1706.05587, section 3.1): the weights are the same, and
a map of 14 x 14 cells for a crop of 224 pixels can outline what one of 7 x 7 cannot. A linear layer over the trunk's
1280 channels takes the place of CLIP's last block: the masker has a copy of its own.

B pictures, C channels, D embedding, H x W a picture's size, h x w that of the map.
"""

from __future__ import annotations

from typing import Self

from torch import Tensor, nn

from edgekit.models.backbone import EVERYWHERE
from edgekit.models.mobilenetv2 import LAST_CHANNELS, MobileNetV2
from edgekit.models.tcl.clip import Projection
from edgekit.models.tcl.spec import MobileSpec

STAGE_32 = 13
"""Index of the first block of the stage whose stride is 32 otherwise."""


class MobileImageEncoder(nn.Module):
    """Pictures to a map, and to an embedding."""

    pixel_mean, pixel_std = (128.0, 128.0, 128.0), (128.0, 128.0, 128.0)
    stride = 16

    def __init__(self, spec: MobileSpec, embedding: int) -> None:
        super().__init__()
        self.channels = spec.channels
        self.trunk = dilated(MobileNetV2())
        self.neck = nn.Conv2d(LAST_CHANNELS, spec.channels, 1)
        self.clip_proj = Projection(spec.channels, embedding)
        self.trunk.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """As any module, except that the trunk stays in evaluation: its statistics are ImageNet's."""
        super().train(mode)
        self.trunk.eval()
        return self

    def features(self, pictures: Tensor) -> Tensor:
        """[B, 3, H, W] normalised, sides multiples of 16 -> the trunk's map [B, 1280, h, w]."""
        output: Tensor = self.trunk(pictures, EVERYWHERE)[1]
        return output

    def pooled(self, features: Tensor) -> Tensor:
        """``features`` -> [B, D], the picture's embedding."""
        # The neck is linear: of the mean or the mean of its outputs is the same.
        output: Tensor = self.clip_proj(self.neck(features.mean(dim=(2, 3), keepdim=True)).flatten(1))
        return output

    def dense(self, features: Tensor, rows: int, columns: int) -> Tensor:
        """``features`` -> what each cell is about, [B, D, h, w]; ``rows`` and ``columns`` are its h and w."""
        assert features.shape[-2:] == (rows, columns)
        output: Tensor = self.clip_proj(self.neck(features))
        return output


def dilated(trunk: MobileNetV2) -> MobileNetV2:
    """``trunk`` with its last stage at stride 16 and at twice the distance between what a kernel reads."""
    for index, block in enumerate(trunk.blocks[STAGE_32:]):
        convolution = block.get_submodule("depthwise.conv")
        assert isinstance(convolution, nn.Conv2d)
        convolution.stride = (1, 1)
        if index > 0:  # the first block reads the map of stride 16, as it did
            convolution.dilation = convolution.padding = (2, 2)
    return trunk
