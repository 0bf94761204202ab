"""MobileNetV2-SSDLite (arXiv 1801.04381, section 6.2): depthwise-separable SSD heads on six feature maps.

The feature maps, extra layers and anchors per cell follow TensorFlow's ``ssdlite_mobilenet_v2_coco``: block 14's
expansion at stride 16 (three anchors a cell), the 1280-channel map at stride 32, then four extra layers (six anchors
each). With 91 classes at 320x320 that gives 0.80 GMAC, the paper's table 6. It differs from the reference in two
ways: classes are sigmoids without a background entry, and every convolution obeys the objectness mask.

B batch, A anchors (2034 at 320x320), C classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgekit.models.anchors import ssd_levels
from edgekit.models.masking import ConvBNReLU6, MaskPyramid
from edgekit.models.mobilenetv2 import BLOCKS, LAST_CHANNELS, MobileNetV2
from edgekit.spec import AnchorLevel

EXTRA_CHANNELS: tuple[tuple[int, int], ...] = ((256, 512), (128, 256), (128, 256), (64, 128))
"""(bottleneck, output) channels of the four extra layers, each of stride 2."""

ANCHORS_PER_CELL = (3, 6, 6, 6, 6, 6)
FEATURE_CHANNELS = (BLOCKS[13].inputs * BLOCKS[13].expansion, LAST_CHANNELS, *(out for _, out in EXTRA_CHANNELS))
MIN_SCALE, MAX_SCALE = 0.2, 0.95
PRIOR_SCORE = 0.01
"""Scores start here: thousands of background anchors at .5 would drown the first epochs (arXiv 1708.02002, 4.1)."""


def anchor_levels(*, height: int, width: int) -> tuple[AnchorLevel, ...]:
    """The six anchor levels for an input whose sides are multiples of 32."""
    rows, columns = height // 16, width // 16
    sizes = []
    for _ in FEATURE_CHANNELS:
        sizes.append((rows, columns))
        rows, columns = (rows + 1) // 2, (columns + 1) // 2
    return ssd_levels(rows_columns=tuple(sizes), height=height, width=width, min_scale=MIN_SCALE, max_scale=MAX_SCALE)


class ExtraLayer(nn.Module):
    """1x1 bottleneck, depthwise 3x3 of stride 2, 1x1: half the resolution."""

    def __init__(self, inputs: int, bottleneck: int, outputs: int) -> None:
        super().__init__()
        self.reduce = ConvBNReLU6(inputs, bottleneck, 1)
        self.depthwise = ConvBNReLU6(bottleneck, bottleneck, 3, stride=2, groups=bottleneck)
        self.expand = ConvBNReLU6(bottleneck, outputs, 1)

    def forward(self, features: Tensor, pyramid: MaskPyramid) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, ceil(H/2), ceil(W/2)]."""
        output: Tensor = self.expand(self.depthwise(self.reduce(features, pyramid), pyramid), pyramid)
        return output


class Predictor(nn.Module):
    """Depthwise 3x3 and a 1x1 convolution with bias: ``outputs`` numbers for each anchor of a feature map."""

    def __init__(self, inputs: int, anchors: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = ConvBNReLU6(inputs, inputs, 3, groups=inputs)
        self.predict = nn.Conv2d(inputs, anchors * outputs, 1)
        self.outputs = outputs
        nn.init.normal_(self.predict.weight, std=0.01)
        nn.init.zeros_(self.predict.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor, pyramid: MaskPyramid) -> Tensor:
        """[B, inputs, H, W] -> [B, H * W * anchors, outputs], zero at inactive cells."""
        raw = pyramid.apply(self.predict(self.depthwise(features, pyramid)))
        return raw.permute(0, 2, 3, 1).reshape(raw.shape[0], -1, self.outputs)


class MobileNetV2SSDLite(nn.Module):
    """The detector: 3.1 M parameters, 0.70 GMAC at 320x320 with 20 classes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone = MobileNetV2()
        inputs = (LAST_CHANNELS, *(out for _, out in EXTRA_CHANNELS))
        self.extras = nn.ModuleList(
            ExtraLayer(before, bottleneck, out)
            for before, (bottleneck, out) in zip(inputs, EXTRA_CHANNELS, strict=False)
        )
        shapes = tuple(zip(FEATURE_CHANNELS, ANCHORS_PER_CELL, strict=True))
        self.class_heads = nn.ModuleList(Predictor(channels, anchors, classes) for channels, anchors in shapes)
        self.box_heads = nn.ModuleList(Predictor(channels, anchors, 4) for channels, anchors in shapes)
        for head in self.class_heads:
            nn.init.constant_(head.predict.bias, -math.log((1 - PRIOR_SCORE) / PRIOR_SCORE))  # type: ignore[arg-type,union-attr]

    def forward(self, image: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Predict for every anchor.

        Args:
            image: [B, 3, H, W] RGB in [-1, 1), H and W multiples of 32.
            mask: [B, 1, H/16, W/16] of zeros and ones; ``None`` is all ones.

        Returns:
            Class logits [B, A, C] and box offsets [B, A, 4] (dx, dy, dw, dh before the variances).
        """
        pyramid = MaskPyramid(mask)
        return self.predict(self.features(image, pyramid), pyramid)

    def features(self, image: Tensor, pyramid: MaskPyramid) -> list[Tensor]:
        """The six feature maps, finest first: [B, 576, H/16, W/16], [B, 1280, H/32, W/32], then the extra layers'."""
        stride_16, features = self.backbone(pyramid.apply(image), pyramid)
        maps = [stride_16, features]
        for extra in self.extras:
            features = extra(features, pyramid)
            maps.append(features)
        return maps

    def predict(self, maps: list[Tensor], pyramid: MaskPyramid) -> tuple[Tensor, Tensor]:
        """From :meth:`features` to what :meth:`forward` returns."""
        logits = [head(features, pyramid) for head, features in zip(self.class_heads, maps, strict=True)]
        offsets = [head(features, pyramid) for head, features in zip(self.box_heads, maps, strict=True)]
        return torch.cat(logits, dim=1), torch.cat(offsets, dim=1)
