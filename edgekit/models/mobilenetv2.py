"""MobileNetV2 1.0 (arXiv 1801.04381, table 2): the trunk of the detector and, thinned out, of the objectness network.

B batch, H x W input size. Strides are PyTorch's symmetric padding-1 ones; Keras pads only bottom and right, which
shifts the sampling grid by a pixel and leaves the function the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from edgekit.models.masking import ConvBNReLU6, MaskPyramid


@dataclass(frozen=True)
class BlockShape:
    """One row of the paper's table 2, unrolled."""

    inputs: int
    outputs: int
    expansion: int
    stride: int


STEM_CHANNELS = 32
LAST_CHANNELS = 1280
BLOCKS: tuple[BlockShape, ...] = (
    BlockShape(32, 16, 1, 1),
    BlockShape(16, 24, 6, 2),
    BlockShape(24, 24, 6, 1),
    BlockShape(24, 32, 6, 2),
    BlockShape(32, 32, 6, 1),
    BlockShape(32, 32, 6, 1),
    BlockShape(32, 64, 6, 2),
    BlockShape(64, 64, 6, 1),
    BlockShape(64, 64, 6, 1),
    BlockShape(64, 64, 6, 1),
    BlockShape(64, 96, 6, 1),
    BlockShape(96, 96, 6, 1),
    BlockShape(96, 96, 6, 1),
    BlockShape(96, 160, 6, 2),
    BlockShape(160, 160, 6, 1),
    BlockShape(160, 160, 6, 1),
    BlockShape(160, 320, 6, 1),
)
"""The 17 inverted residual blocks; block k of the paper is ``BLOCKS[k - 1]``."""


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1 without activation, and add the input where shapes allow."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        hidden = shape.inputs * shape.expansion
        self.expand = ConvBNReLU6(shape.inputs, hidden, 1) if shape.expansion > 1 else None
        self.depthwise = ConvBNReLU6(hidden, hidden, 3, stride=shape.stride, groups=hidden)
        self.project = ConvBNReLU6(hidden, shape.outputs, 1, activation=False)
        self.residual = shape.stride == 1 and shape.inputs == shape.outputs

    def forward(self, features: Tensor, pyramid: MaskPyramid) -> tuple[Tensor, Tensor]:
        """[B, inputs, H, W] -> the block's output and its expansion (SSDLite's first feature map reads one)."""
        expansion = features if self.expand is None else self.expand(features, pyramid)
        # What lies outside the mask here could reach inside only through a depthwise, and those read masked maps. So
        # training leaves these multiplications out, a sixth of a step; batch statistics would need them.
        within = MaskPyramid(None) if self.project.is_folded() else pyramid
        output = self.project(self.depthwise(expansion, within), within)
        return (features + output if self.residual else output), expansion


class MobileNetV2(nn.Module):
    """The trunk without its classifier: 2.19 M parameters, 0.61 GMAC at 320x320."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBNReLU6(3, STEM_CHANNELS, 3, stride=2)
        self.blocks = nn.ModuleList(InvertedResidual(shape) for shape in BLOCKS)
        self.last = ConvBNReLU6(BLOCKS[-1].outputs, LAST_CHANNELS, 1)

    def forward(self, image: Tensor, pyramid: MaskPyramid) -> tuple[Tensor, Tensor]:
        """[B, 3, H, W] -> block 14's expansion [B, 576, H/16, W/16] and the last map [B, 1280, H/32, W/32]."""
        features = self.stem(image, pyramid)
        for index, block in enumerate(self.blocks):
            features, expansion = block(features, pyramid)
            if index == 13:
                stride_16 = expansion
        return stride_16, self.last(features, pyramid)
