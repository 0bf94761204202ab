"""The trunk of PVANet 9.0 (arXiv 1608.08021) and 9.1 (arXiv 1611.08588), and the hyper feature on top of it.

Both have the same convolutions; they differ in where BatchNorm, Scale, ReLU and biases stand. 9.0 normalises and
activates behind a convolution, and its blocks end in a bare sum. 9.1 does so before it (pre-activation), the first
block excepted; the shortcuts that change the size read the activated input in the C.ReLU blocks and the bare one in
the Inception blocks. All this is as in the published network files.

B batch, H x W input size, multiples of 32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from edgekit.models.masking import MaskPyramid
from edgekit.models.pvanet_layers import (
    ConvCReLU,
    ConvNorm,
    CReLUConv,
    NormConv,
    Scale,
    absorb,
    batch_norm,
    convolution,
    max_pool,
    merge,
    normalise,
    scaled,
)


@dataclass(frozen=True, kw_only=True)
class CReLUShape:
    """A block of 1x1, 3x3 with C.ReLU, 1x1 (table 1 of the paper, "mC.ReLU")."""

    inner: int
    """Filters of the first two convolutions; C.ReLU doubles the second's."""

    outputs: int
    """Channels of the block."""

    stride: int = 1
    """Of the first convolution, and of the shortcut."""

    projects: bool = False
    """Whether the shortcut is a convolution, as in the first block of a stage."""


@dataclass(frozen=True, kw_only=True)
class InceptionShape:
    """A block of parallel branches and a 1x1 convolution over all of them (table 1, "Inception")."""

    direct: int
    """Channels of the 1x1 branch."""

    three: tuple[int, int]
    """1x1 and 3x3 of the 3x3 branch."""

    five: tuple[int, int]
    """1x1 and both 3x3 of the 5x5 branch."""

    pool: int = 0
    """1x1 behind the maxima; 0 where there is no such branch."""

    outputs: int
    """Channels of the block."""

    stride: int = 1
    """Of the branches' first 1x1, of the maxima and of the shortcut."""

    projects: bool = False
    """Whether the shortcut is a convolution, as in the first block of a stage."""


STEM_FILTERS = 16
BLOCKS: Mapping[str, CReLUShape | InceptionShape] = {
    "conv2_1": CReLUShape(inner=24, outputs=64, projects=True),
    "conv2_2": CReLUShape(inner=24, outputs=64),
    "conv2_3": CReLUShape(inner=24, outputs=64),
    "conv3_1": CReLUShape(inner=48, outputs=128, stride=2, projects=True),
    "conv3_2": CReLUShape(inner=48, outputs=128),
    "conv3_3": CReLUShape(inner=48, outputs=128),
    "conv3_4": CReLUShape(inner=48, outputs=128),
    "conv4_1": InceptionShape(
        direct=64, three=(48, 128), five=(24, 48), pool=128, outputs=256, stride=2, projects=True
    ),
    "conv4_2": InceptionShape(direct=64, three=(64, 128), five=(24, 48), outputs=256),
    "conv4_3": InceptionShape(direct=64, three=(64, 128), five=(24, 48), outputs=256),
    "conv4_4": InceptionShape(direct=64, three=(64, 128), five=(24, 48), outputs=256),
    "conv5_1": InceptionShape(
        direct=64, three=(96, 192), five=(32, 64), pool=128, outputs=384, stride=2, projects=True
    ),
    "conv5_2": InceptionShape(direct=64, three=(96, 192), five=(32, 64), outputs=384),
    "conv5_3": InceptionShape(direct=64, three=(96, 192), five=(32, 64), outputs=384),
    "conv5_4": InceptionShape(direct=64, three=(96, 192), five=(32, 64), outputs=384),
}
"""Channels of the network of full width; the names are the published ones."""

LAST = "conv5_4"
FEATURES = ("conv3_4", "conv4_4", LAST)
"""The maps at strides 8, 16 and 32 that the hyper feature is made of."""


def thinned(shape: CReLUShape | InceptionShape, width: float) -> CReLUShape | InceptionShape:
    """``shape`` in a network ``width`` times as wide."""
    outputs = scaled(shape.outputs, width)
    if isinstance(shape, CReLUShape):
        return replace(shape, inner=scaled(shape.inner, width), outputs=outputs)
    return replace(
        shape,
        direct=scaled(shape.direct, width),
        three=(scaled(shape.three[0], width), scaled(shape.three[1], width)),
        five=(scaled(shape.five[0], width), scaled(shape.five[1], width)),
        pool=scaled(shape.pool, width) if shape.pool else 0,
        outputs=outputs,
    )


class Shortcut(nn.Module):
    """Base of a block: what it adds to its output is its input, or a 1x1 convolution with bias of it.

    The convolution and, in 9.0, its BatchNorm and Scale belong to the block itself, under their published names.
    """

    def __init__(self, inputs: int, shape: CReLUShape | InceptionShape, *, norm: bool) -> None:
        super().__init__()
        outputs, norm = shape.outputs, norm and shape.projects
        self.proj = convolution(inputs, outputs, 1, stride=shape.stride, bias=True) if shape.projects else None
        self.proj_bn: nn.BatchNorm2d | None = batch_norm(outputs) if norm else None
        self.proj_bn_scale: Scale | None = Scale(outputs) if norm else None

    def shortcut(self, features: Tensor, pyramid: MaskPyramid) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H/stride, W/stride]."""
        if self.proj is None:
            return features
        return pyramid.apply(normalise(self.proj(features), self.proj_bn, self.proj_bn_scale))

    def fold_norms(self) -> None:
        """See ``edgekit.models.pvanet_layers.fold``."""
        if self.proj is not None:
            absorb(self.proj, self.proj_bn, self.proj_bn_scale)
            self.proj_bn = self.proj_bn_scale = None


class PostCReLUBlock(Shortcut):
    """9.0: every convolution normalised behind it, the last not activated."""

    def __init__(self, inputs: int, shape: CReLUShape) -> None:
        super().__init__(inputs, shape, norm=True)
        self.add_module("1", ConvNorm(inputs, shape.inner, 1, stride=shape.stride))
        self.add_module("2", ConvCReLU(shape.inner, shape.inner, 3))
        self.add_module("3", ConvNorm(2 * shape.inner, shape.outputs, 1, relu=False))

    def forward(self, features: Tensor, pyramid: MaskPyramid) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H/stride, W/stride]."""
        output = features
        for name in "123":
            output = self.get_submodule(name)(output, pyramid)
        return output + self.shortcut(features, pyramid)


class PreCReLUBlock(Shortcut):
    """9.1: every convolution activated before it; ``bare`` is the first block, which reads activated maxima."""

    def __init__(self, inputs: int, shape: CReLUShape, *, bare: bool) -> None:
        super().__init__(inputs, shape, norm=False)
        self.add_module("1", NormConv(inputs, shape.inner, 1, stride=shape.stride, bare=bare))
        self.add_module("2", NormConv(shape.inner, shape.inner, 3))
        self.add_module("3", CReLUConv(shape.inner, shape.outputs))

    def forward(self, features: Tensor, pyramid: MaskPyramid) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H/stride, W/stride]."""
        first, second, third = (self.get_submodule(name) for name in "123")
        hidden, activated = first(features, pyramid)
        hidden, _ = second(hidden, pyramid)
        output: Tensor = third(hidden, pyramid)
        return output + self.shortcut(features if self.proj is None else activated, pyramid)

    def fold_norms(self) -> None:
        """The norms before the second and third convolution read one convolution each; the first reads a sum."""
        first, second = (cast(NormConv, self.get_submodule(name)) for name in "12")
        third = cast(CReLUConv, self.get_submodule("3"))
        if first.bn_scale is not None:
            merge(first.bn, first.bn_scale)
        absorb(first.conv, second.bn, second.bn_scale)
        absorb(second.conv, third.bn, None)
        first.bn = second.bn = second.bn_scale = third.bn = None


class Branches(nn.Module):
    """The parallel branches of an Inception block, concatenated; in 9.1 behind one common activation."""

    def __init__(self, inputs: int, shape: InceptionShape, *, pre: bool) -> None:
        super().__init__()
        self.pre = pre
        self.pools = shape.pool > 0
        self.outputs = shape.direct + shape.three[1] + shape.five[1] + shape.pool
        self.bn: nn.BatchNorm2d | None = batch_norm(inputs) if pre else None
        self.bn_scale: Scale | None = Scale(inputs) if pre else None
        (three, three_out), (five, five_out) = shape.three, shape.five
        self.add_module("0", ConvNorm(inputs, shape.direct, 1, stride=shape.stride))
        self.add_module("1_reduce", ConvNorm(inputs, three, 1, stride=shape.stride))
        self.add_module("1_0", ConvNorm(three, three_out, 3))
        self.add_module("2_reduce", ConvNorm(inputs, five, 1, stride=shape.stride))
        self.add_module("2_0", ConvNorm(five, five_out, 3))
        self.add_module("2_1", ConvNorm(five_out, five_out, 3))
        if self.pools:
            self.add_module("poolproj", ConvNorm(inputs, shape.pool, 1))

    def forward(self, features: Tensor, pyramid: MaskPyramid) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H/stride, W/stride]."""
        if self.pre:
            features = pyramid.apply(normalise(features, self.bn, self.bn_scale).relu())
        ends = []
        for branch in (("0",), ("1_reduce", "1_0"), ("2_reduce", "2_0", "2_1")):
            end = features
            for name in branch:
                end = self.get_submodule(name)(end, pyramid)
            ends.append(end)
        if self.pools:
            ends.append(self.get_submodule("poolproj")(max_pool(features, pyramid), pyramid))
        return torch.cat(ends, dim=1)

    def fold_norms(self) -> None:
        """The common activation reads a sum: its norm goes into its Scale."""
        if self.bn_scale is not None:
            merge(self.bn, self.bn_scale)
            self.bn = None


class BiasedConv(nn.Module):
    """A 1x1 convolution with bias and nothing behind it, as ``out`` of most Inception blocks of 9.1."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = convolution(inputs, outputs, 1, bias=True)

    def forward(self, features: Tensor, pyramid: MaskPyramid) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H, W]."""
        return pyramid.apply(self.conv(features))


class Inception(Shortcut):
    """Branches, a 1x1 convolution, the shortcut. The ``last`` block of 9.1 normalises twice more than the others."""

    def __init__(self, inputs: int, shape: InceptionShape, *, pre: bool, last: bool) -> None:
        super().__init__(inputs, shape, norm=not pre)
        self.incep = Branches(inputs, shape, pre=pre)
        bare = pre and not last
        total = self.incep.outputs
        self.out = BiasedConv(total, shape.outputs) if bare else ConvNorm(total, shape.outputs, 1, relu=False)
        self.activates = pre and last
        self.last_bn: nn.BatchNorm2d | None = batch_norm(shape.outputs) if self.activates else None
        self.last_bn_scale: Scale | None = Scale(shape.outputs) if self.activates else None

    def forward(self, features: Tensor, pyramid: MaskPyramid) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H/stride, W/stride]."""
        output: Tensor = self.out(self.incep(features, pyramid), pyramid) + self.shortcut(features, pyramid)
        if self.activates:
            output = pyramid.apply(normalise(output, self.last_bn, self.last_bn_scale).relu())
        return output

    def fold_norms(self) -> None:
        """The activation at the end reads a sum: its norm goes into its Scale."""
        super().fold_norms()
        if self.last_bn_scale is not None:
            merge(self.last_bn, self.last_bn_scale)
            self.last_bn = None


class Trunk(nn.Module):
    """conv1_1 to conv5_4: 2.89 M weights at full width; 511 MMAC at 224x224."""

    def __init__(self, *, preactivation: bool, width: float = 1.0) -> None:
        """Make the trunk of 9.1 if ``preactivation``, else that of 9.0.

        Raises:
            ValueError: ``width`` is not a positive number.
        """
        super().__init__()
        filters = scaled(STEM_FILTERS, width)
        self.conv1_1 = ConvCReLU(3, filters, 7, stride=2)
        inputs, first = 2 * filters, next(iter(BLOCKS))
        for name, full in BLOCKS.items():
            shape = thinned(full, width)
            block: nn.Module
            if isinstance(shape, InceptionShape):
                block = Inception(inputs, shape, pre=preactivation, last=name == LAST)
            elif preactivation:
                block = PreCReLUBlock(inputs, shape, bare=name == first)
            else:
                block = PostCReLUBlock(inputs, shape)
            self.add_module(name, block)
            inputs = shape.outputs
        self.channels = tuple(scaled(BLOCKS[name].outputs, width) for name in FEATURES)
        """Of what :meth:`forward` returns."""

    def forward(self, image: Tensor, pyramid: MaskPyramid) -> tuple[Tensor, Tensor, Tensor]:
        """[B, 3, H, W] -> conv3_4 [B, 128, H/8, W/8], conv4_4 [B, 256, H/16, W/16], conv5_4 [B, 384, H/32, W/32].

        The first two are sums that no ReLU follows; the third is one in 9.0, and activated in 9.1.
        """
        features = max_pool(self.conv1_1(pyramid.apply(image), pyramid), pyramid)
        maps = {}
        for name in BLOCKS:
            features = self.get_submodule(name)(features, pyramid)
            maps[name] = features
        fine, middle, coarse = (maps[name] for name in FEATURES)
        return fine, middle, coarse


def bilinear_upsampling(channels: int) -> nn.ConvTranspose2d:
    """Twice the size by fixed bilinear interpolation, each channel for itself: Caffe's "bilinear" filler, 4x4."""
    layer = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1, groups=channels, bias=False)
    line = torch.tensor([0.25, 0.75, 0.75, 0.25])
    with torch.no_grad():
        layer.weight.copy_(torch.outer(line, line).expand_as(layer.weight))
    return layer.requires_grad_(False)


class HyperFeature(nn.Module):
    """Three maps brought to stride 16, concatenated and mixed by 1x1 convolutions (arXiv 1608.08021, section 2.3)."""

    def __init__(self, inputs: tuple[int, ...], outputs: Mapping[str, int]) -> None:
        """Make the layers.

        Args:
            inputs: channels of the maps at strides 8, 16 and 32.
            outputs: name and channels of each mixing convolution; the first feeds the region proposals.
        """
        super().__init__()
        self.upsample = bilinear_upsampling(inputs[-1])
        self.names = tuple(outputs)
        for name, channels in outputs.items():
            self.add_module(name, convolution(sum(inputs), channels, 1, bias=True))

    def forward(self, maps: tuple[Tensor, Tensor, Tensor], pyramid: MaskPyramid) -> tuple[Tensor, Tensor]:
        """Maps at strides 8, 16 and 32 -> what the proposals read and what RoIs are pooled from, [B, C, H/16, W/16]."""
        fine, middle, coarse = maps
        together = torch.cat([max_pool(fine, pyramid), middle, pyramid.apply(self.upsample(coarse))], dim=1)
        mixed = [pyramid.apply(self.get_submodule(name)(together).relu()) for name in self.names]
        return mixed[0], torch.cat(mixed, dim=1)
