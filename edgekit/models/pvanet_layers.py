"""The layers that PVANet is made of: convolutions with Caffe's BatchNorm and Scale around them, and C.ReLU.

Caffe splits batch norm in two layers: ``BatchNorm`` normalises and has no affine part, ``Scale`` multiplies and adds.
The split matters here, as C.ReLU (arXiv 1608.08021, section 2.1) negates between the two. Children are called as in
the published network files, so a module's path within its part, with "/" for ".", is the name of the Caffe layer.

Every unit ends in :meth:`MaskPyramid.apply`, behind its last shift: what leaves it is exactly zero outside the mask.

B batch, C channels, H x W the size of a feature map.
"""

from __future__ import annotations

import copy
import math
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.models.masking import MaskPyramid

BATCH_NORM_EPS = 1e-5
"""Caffe's default (caffe.proto, BatchNormParameter)."""

BIAS_FILL = 0.1
"""What the published files start a bias at, except in the layers that predict."""

Norm = nn.BatchNorm1d | nn.BatchNorm2d
AnyModule = TypeVar("AnyModule", bound=nn.Module)


def scaled(channels: int, width: float) -> int:
    """``channels`` of the published network in one ``width`` times as wide: a multiple of 8, and 8 at least.

    Raises:
        ValueError: ``width`` is not a positive number.
    """
    if not (math.isfinite(width) and width > 0):
        raise ValueError(f"the width of a PVANet is a positive number, 1 for the published one; got {width}")
    return max(8, math.floor(channels * width / 8 + 0.5) * 8)


class Scale(nn.Module):
    """A factor and a shift for every channel, as Caffe's Scale layer with ``bias_term``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        """[B, C] or [B, C, H, W] -> the same shape."""
        shape = [-1, *[1] * (features.dim() - 2)]
        return torch.addcmul(self.bias.view(shape), features, self.weight.view(shape))


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Caffe's BatchNorm layer over feature maps: no affine part."""
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS, affine=False)


def normalise(features: Tensor, norm: Norm | None, scale: Scale | None) -> Tensor:
    """BatchNorm and then Scale, in one pass over the features; either may be absent, as after :func:`fold`.

    A batch norm of another kind than PyTorch's own, as training in many processes has, computes for itself.
    """
    if norm is None or scale is None or type(norm) not in (nn.BatchNorm1d, nn.BatchNorm2d):
        for layer in (norm, scale):
            features = features if layer is None else layer(features)
        return features
    assert norm.momentum is not None
    return F.batch_norm(
        features, norm.running_mean, norm.running_var, scale.weight, scale.bias, norm.training, norm.momentum, norm.eps
    )


def both_signs(features: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, 2C, H, W]: the features, then their negatives."""
    return torch.cat([features, -features], dim=1)


def max_pool(features: Tensor, pyramid: MaskPyramid) -> Tensor:
    """3x3 maxima of stride 2, no padding, with Caffe's size: [B, C, H, W] -> [B, C, ceil((H - 1) / 2), ...].

    A window reaches into the next cell, so a maximum next to the mask would be non-zero: it is masked again.
    """
    return pyramid.apply(F.max_pool2d(features, kernel_size=3, stride=2, ceil_mode=True))


def fill(layer: nn.Conv2d | nn.Linear) -> None:
    """Start a layer as the published files do: Caffe's "xavier" (uniform, variance 1 / fan-in), biases at .1."""
    bound = math.sqrt(3 / layer.weight[0].numel())
    nn.init.uniform_(layer.weight, -bound, bound)
    if layer.bias is not None:
        nn.init.constant_(layer.bias, BIAS_FILL)


def convolution(inputs: int, outputs: int, kernel: int, *, stride: int = 1, bias: bool) -> nn.Conv2d:
    """A filled convolution of an odd kernel, padded by half of it: [B, inputs, H, W] -> [B, outputs, H/stride, ...]."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=bias)
    fill(layer)
    return layer


class ConvNorm(nn.Module):
    """Convolution without bias, BatchNorm, Scale and, unless ``relu`` is off, ReLU: 9.0 everywhere, 9.1's branches."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, relu: bool = True) -> None:
        super().__init__()
        self.conv = convolution(inputs, outputs, kernel, stride=stride, bias=False)
        self.bn: nn.BatchNorm2d | None = batch_norm(outputs)
        self.bn_scale: Scale | None = Scale(outputs)
        self.relu = relu

    def forward(self, features: Tensor, pyramid: MaskPyramid) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H/stride, W/stride]."""
        output = normalise(self.conv(features), self.bn, self.bn_scale)
        return pyramid.apply(output.relu() if self.relu else output)

    def fold_norms(self) -> None:
        """See :func:`fold`."""
        absorb(self.conv, self.bn, self.bn_scale)
        self.bn = self.bn_scale = None


class ConvCReLU(nn.Module):
    """Convolution without bias, BatchNorm, both signs, Scale over all of them, ReLU: twice as many maps as filters."""

    def __init__(self, inputs: int, filters: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = convolution(inputs, filters, kernel, stride=stride, bias=False)
        self.bn: nn.BatchNorm2d | None = batch_norm(filters)
        self.scale = Scale(2 * filters)

    def forward(self, features: Tensor, pyramid: MaskPyramid) -> Tensor:
        """[B, inputs, H, W] -> [B, 2 * filters, H/stride, W/stride]."""
        output = self.scale(both_signs(normalise(self.conv(features), self.bn, None)))
        return pyramid.apply(output.relu())

    def fold_norms(self) -> None:
        """See :func:`fold`; the Scale has a factor for each sign, so it stays."""
        absorb(self.conv, self.bn, None)
        self.bn = None


class NormConv(nn.Module):
    """BatchNorm, Scale, ReLU and then a convolution with bias (9.1); without the first three if ``bare``."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, bare: bool = False) -> None:
        super().__init__()
        self.bn: nn.BatchNorm2d | None = None if bare else batch_norm(inputs)
        self.bn_scale: Scale | None = None if bare else Scale(inputs)
        self.conv = convolution(inputs, outputs, kernel, stride=stride, bias=True)
        self.bare = bare

    def forward(self, features: Tensor, pyramid: MaskPyramid) -> tuple[Tensor, Tensor]:
        """[B, inputs, H, W] -> the convolution [B, outputs, H/stride, W/stride], not masked, and what it read, masked.

        The caller masks behind its next shift: a mask between a convolution and a batch norm would not last.
        """
        if not self.bare:
            features = pyramid.apply(normalise(features, self.bn, self.bn_scale).relu())
        return self.conv(features), features


class CReLUConv(nn.Module):
    """BatchNorm, both signs, Scale over all of them, ReLU and then a 1x1 convolution with bias (9.1)."""

    def __init__(self, filters: int, outputs: int) -> None:
        super().__init__()
        self.bn: nn.BatchNorm2d | None = batch_norm(filters)
        self.scale = Scale(2 * filters)
        self.conv = convolution(2 * filters, outputs, 1, bias=True)

    def forward(self, features: Tensor, pyramid: MaskPyramid) -> Tensor:
        """[B, filters, H, W] -> [B, outputs, H, W]."""
        activated = self.scale(both_signs(normalise(features, self.bn, None))).relu()
        return pyramid.apply(self.conv(pyramid.apply(activated)))


@runtime_checkable
class Foldable(Protocol):
    """A module with batch norms of its own."""

    def fold_norms(self) -> None:
        """Absorb them, in place."""


def fold(module: AnyModule) -> AnyModule:
    """A copy of ``module`` without batch norms: each is absorbed by the layer before it, or by its own Scale.

    The Scale layers of C.ReLU stay, and so do those of 9.1 that read a sum, which no convolution feeds alone. The
    published folding (``tools/gen_merged_model.py``) divides by the root of the variance plus 2e-16 instead of 1e-5;
    this one computes what the unfolded network computes.
    """
    copied = copy.deepcopy(module)
    for part in list(copied.modules()):
        if isinstance(part, Foldable):
            part.fold_norms()
    return copied


def absorb(layer: nn.Conv2d | nn.Linear, norm: Norm | None, scale: Scale | None) -> None:
    """Change ``layer`` in place so that it computes what ``norm`` and ``scale`` make of it."""
    if norm is None and scale is None:
        return
    factor, shift = affine(norm, scale)
    with torch.no_grad():
        before = 0 if layer.bias is None else layer.bias.double() * factor
        layer.weight.copy_(layer.weight.double() * factor.view(-1, *[1] * (layer.weight.dim() - 1)))
        bias = (before + shift).to(layer.weight.dtype)
        layer.bias = nn.Parameter(bias)


def merge(norm: Norm | None, scale: Scale) -> None:
    """Change ``scale`` in place so that it computes what ``norm`` and it compute."""
    factor, shift = affine(norm, scale)
    with torch.no_grad():
        scale.weight.copy_(factor)
        scale.bias.copy_(shift)


def affine(norm: Norm | None, scale: Scale | None) -> tuple[Tensor, Tensor]:
    """Factor and shift [C], double precision, of a BatchNorm with fixed statistics and a Scale, or of one of them."""
    factor: Tensor | float = 1.0
    shift: Tensor | float = 0.0
    if norm is not None:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        factor = torch.rsqrt(norm.running_var.double() + norm.eps)
        shift = -norm.running_mean.double() * factor
    if scale is not None:
        weight = scale.weight.detach().double()
        factor, shift = weight * factor, weight * shift + scale.bias.detach().double()
    assert isinstance(factor, Tensor)
    assert isinstance(shift, Tensor)
    return factor, shift
