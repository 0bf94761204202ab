"""ResNet-50 (arXiv 1512.03385, table 1 and figure 5) without its classifier: the backbone of Deformable DETR.

A bottleneck's stride is on its 3x3 convolution and layers have their names as in torchvision's ImageNet weights; the
paper's own models have the stride on the first 1x1. B batch, H x W input size.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.models.backbone import EVERYWHERE, IMAGENET_MEAN, IMAGENET_STD
from edgekit.models.frozen_batch_norm import FrozenBatchNorm2d
from edgekit.models.masking import MaskPyramid

Norm = Callable[[int], nn.Module]
"""Makes the normalisation of so many channels."""

EXPANSION = 4
"""A bottleneck's output channels for one of its 3x3 convolution's."""


class Bottleneck(nn.Module):
    """1x1 to ``width``, 3x3 with the stride, 1x1 to 4 ``width``; added to the input, projected if the shape changes."""

    def __init__(self, inputs: int, width: int, stride: int, norm: Norm) -> None:
        super().__init__()
        outputs = width * EXPANSION
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = norm(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = norm(outputs)
        self.downsample: nn.Sequential | None = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), norm(outputs))

    def forward(self, features: Tensor, pyramid: MaskPyramid) -> Tensor:
        """[B, inputs, H, W] -> [B, 4 width, ceil(H/stride), ceil(W/stride)]."""
        residual = pyramid.apply(F.relu(self.bn1(self.conv1(features)), inplace=True))
        residual = pyramid.apply(F.relu(self.bn2(self.conv2(residual)), inplace=True))
        residual = self.bn3(self.conv3(residual))
        shortcut = features if self.downsample is None else self.downsample(features)
        return pyramid.apply(F.relu(residual + shortcut, inplace=True))


class ResNet(nn.Module):
    """The trunk up to the last residual map: 23,508,032 parameters with ``nn.BatchNorm2d``, which has 53,120 of them.

    Args:
        layers: bottlenecks at each of the strides 4, 8, 16 and 32; those of ResNet-50 unless told.
        width: of the stem's output and of the first stage's 3x3 convolutions.
        norm: follows every convolution; ``nn.BatchNorm2d`` to train from scratch.
    """

    pixel_mean, pixel_std = IMAGENET_MEAN, IMAGENET_STD

    def __init__(
        self, layers: tuple[int, int, int, int] = (3, 4, 6, 3), width: int = 64, norm: Norm = FrozenBatchNorm2d
    ) -> None:
        super().__init__()
        self.channels: tuple[int, ...] = tuple(width * EXPANSION * factor for factor in (2, 4, 8))
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm(width)
        self.layer1 = _stage(width, width, layers[0], 1, norm)
        self.layer2 = _stage(width * EXPANSION, width * 2, layers[1], 2, norm)
        self.layer3 = _stage(self.channels[0], width * 4, layers[2], 2, norm)
        self.layer4 = _stage(self.channels[1], width * 8, layers[3], 2, norm)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # Keeps the variance through ReLUs (arXiv 1502.01852), as section 3.4 of the paper has it.
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, pictures: Tensor, pyramid: MaskPyramid = EVERYWHERE) -> list[Tensor]:
        """[B, 3, H, W], normalised by ImageNet's mean and deviation -> maps of the strides 8, 16 and 32.

        Map k is [B, channels[k], ceil(H/s), ceil(W/s)] for its stride s. Outputs of all convolutions are masked, but
        for a bottleneck's last and its shortcut's, whose sum is.
        """
        features = pyramid.apply(F.relu(self.bn1(self.conv1(pictures)), inplace=True))
        features = pyramid.apply(F.max_pool2d(features, 3, stride=2, padding=1))
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for bottleneck in stage:
                features = bottleneck(features, pyramid)
            maps.append(features)
        return maps[1:]

    def stages(self) -> list[nn.Module]:
        """The stem and the four stages of bottlenecks."""
        return [nn.ModuleList([self.conv1, self.bn1]), self.layer1, self.layer2, self.layer3, self.layer4]

    def freeze_stem(self) -> None:
        """No gradients for the stem and ``layer1``, as Deformable DETR fine-tunes.

        An ``nn.BatchNorm2d`` in them goes on measuring in training mode.
        """
        for part in (self.conv1, self.bn1, self.layer1):
            part.requires_grad_(False)


def _stage(inputs: int, width: int, blocks: int, stride: int, norm: Norm) -> nn.Sequential:
    """``blocks`` bottlenecks, the first of which has the stride."""
    rest = [Bottleneck(width * EXPANSION, width, 1, norm) for _ in range(blocks - 1)]
    return nn.Sequential(Bottleneck(inputs, width, stride, norm), *rest)
