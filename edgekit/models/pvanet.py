"""PVANet: a deep, thin trunk under Faster R-CNN (arXiv 1608.08021, "9.0"; arXiv 1611.08588, "9.1"), and PVANet-lite.

Sizes, strides, names and the places of batch norms are those of https://github.com/sanghoon/pva-faster-rcnn. Three
things differ from it: every convolution obeys the objectness mask (``edgekit.models.masking``); anchors outside the
mask propose nothing; and proposals under the smallest side are dropped in all variants, where the C++ layer of 9.0 and
lite multiplied their score by 0.

Pictures are BGR float32, minus ``MEAN_BGR`` and not divided by anything. B batch, R RoIs, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from edgekit.errors import UsageError
from edgekit.models.masking import MaskPyramid
from edgekit.models.pvanet_head import RPN, HeadShape, Hidden, HiddenShape, RoIHead, compress, pool_rois
from edgekit.models.pvanet_layers import fill, scaled
from edgekit.models.pvanet_lite import LiteTrunk
from edgekit.models.pvanet_rois import PROPOSALS, AnchorShapes, clip, decode, propose, to_exclusive
from edgekit.models.pvanet_trunk import HyperFeature, Trunk

MEAN_BGR = (102.9801, 115.9465, 122.7717)
"""Of blue, green and red in 0..255."""

COARSEST = 32
"""Stride of the last map in pixels: both sides of an input are multiples of it."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One published network; channels are those of full width."""

    anchors: AnchorShapes
    """What the region proposal network predicts for."""

    proposals_before_nms: int
    """How many of the best enter suppression when detecting."""

    hyper: Mapping[str, int]
    """Name and channels of the convolutions over the hyper feature; the first feeds the proposals."""

    rpn_hidden: int
    """Channels of the proposal network's hidden layer."""

    rpn_kernel: int
    """Side of its kernel."""

    full: HeadShape | None
    """The classifier as trained from scratch; ``None`` where only a compressed one was published."""

    compressed: HeadShape
    """The classifier with its hidden layers in two halves."""


FEW_ANCHORS = AnchorShapes(ratios=(0.5, 0.667, 1, 1.5, 2), scales=(3, 6, 9, 16, 32))
MANY_ANCHORS = AnchorShapes(ratios=(0.333, 0.5, 0.667, 1, 1.5, 2, 3), scales=(2, 3, 5, 9, 16, 32))

WHOLE = HiddenShape(outputs=4096)
HALVES = HiddenShape(outputs=4096, rank=512)
BARE_HALVES = HiddenShape(outputs=4096, rank=512, norm=False, scale=None)
BIASLESS_HALVES = HiddenShape(outputs=4096, rank=512, low_bias=False, norm=False, scale=None)

VARIANTS: Mapping[str, Variant] = {
    "9.0": Variant(
        anchors=FEW_ANCHORS,
        proposals_before_nms=12000,
        hyper={"convf_rpn": 128, "convf_2": 384},
        rpn_hidden=384,
        rpn_kernel=3,
        full=HeadShape(fc6=WHOLE, fc7=WHOLE, dropout=0.5),
        compressed=HeadShape(fc6=BIASLESS_HALVES, fc7=BIASLESS_HALVES, dropout=0.25),
    ),
    "9.1": Variant(
        anchors=MANY_ANCHORS,
        proposals_before_nms=12000,
        hyper={"convf_rpn": 128, "convf_2": 384},
        rpn_hidden=384,
        rpn_kernel=3,
        full=HeadShape(fc6=WHOLE, fc7=WHOLE, dropout=0.25),
        # That fc6 has no Scale is how the file was published.
        compressed=HeadShape(
            fc6=HiddenShape(outputs=4096, rank=512, scale=None),
            fc7=HALVES,
            dropout=0.25,
        ),
    ),
    "lite": Variant(
        anchors=FEW_ANCHORS,
        proposals_before_nms=6000,
        hyper={"convf": 256},
        rpn_hidden=256,
        rpn_kernel=1,
        full=None,
        compressed=HeadShape(
            fc6=BARE_HALVES,
            fc7=HiddenShape(outputs=4096, rank=128, norm=False, scale=None),
            dropout=0.0,
        ),
    ),
}
"""By the name that people type."""


@dataclass(frozen=True, kw_only=True)
class Maps:
    """What a PVANet computes once for a picture."""

    scores: Tensor
    """[B, 2A, H/16, W/16] logits of the proposals, the background's first."""

    deltas: Tensor
    """[B, 4A, H/16, W/16] corrections of the anchors, four for each in turn."""

    features: Tensor
    """[B, C, H/16, W/16] what RoIs are pooled from."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """The RoIs of one picture and what they are; nothing is thresholded or suppressed among classes."""

    rois: Tensor
    """[R, 4] left, top, right, bottom in input pixels, right and bottom exclusive; the best first."""

    probabilities: Tensor
    """[R, K + 1] in 0..1, summing to 1; the background first."""

    boxes: Tensor
    """[R, K + 1, 4] as ``rois``, corrected for each class."""


class PVANet(nn.Module):
    """The detector; a layer's path below its part (trunk, hyper, rpn, head) is its name in the published file."""

    CAFFE_PARTS = ("trunk", "hyper", "rpn", "head")
    """Children whose own name is no part of a Caffe layer's name."""

    def __init__(self, variant: str, *, classes: int = 20, compressed: bool = False, width: float = 1.0) -> None:
        """Make a network with the published files' starting weights.

        Args:
            variant: a key of :data:`VARIANTS`.
            classes: K, without the background.
            compressed: whether fc6 and fc7 are in two halves; lite always is.
            width: channels over those of the published network, rounded to multiples of 8.

        Raises:
            UsageError: no such variant.
            ValueError: ``width`` is not a positive number.
        """
        super().__init__()
        if variant not in VARIANTS:
            raise UsageError(f"no PVANet is called {variant!r}. There are: {', '.join(VARIANTS)}")
        self.variant, self.width = VARIANTS[variant], width
        self.trunk = LiteTrunk(width=width) if variant == "lite" else Trunk(preactivation=variant == "9.1", width=width)
        hyper = {name: scaled(channels, width) for name, channels in self.variant.hyper.items()}
        self.hyper = HyperFeature(self.trunk.channels, hyper)
        self.rpn = RPN(
            next(iter(hyper.values())),
            scaled(self.variant.rpn_hidden, width),
            kernel=self.variant.rpn_kernel,
            anchors=len(self.variant.anchors),
        )
        full = None if compressed else self.variant.full
        self.head = RoIHead(sum(hyper.values()), classes, thinned(full or self.variant.compressed, width))

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Maps:
        """Everything that does not depend on RoIs.

        Args:
            image: [B, 3, H, W] BGR minus the mean, H and W multiples of 32.
            mask: [B, 1, H/16, W/16] of zeros and ones; ``None`` is all ones.

        Raises:
            ValueError: a side is no multiple of 32.
        """
        check_sides(height=image.shape[-2], width=image.shape[-1])
        pyramid = MaskPyramid(mask)
        proposing, features = self.hyper(self.trunk(image, pyramid), pyramid)
        scores, deltas = self.rpn(proposing, pyramid)
        return Maps(scores=scores, deltas=deltas, features=features)

    @torch.no_grad()
    def detect(
        self,
        image: Tensor,
        mask: Tensor | None = None,
        *,
        proposals: int = PROPOSALS,
        resized: tuple[float, float] = (1.0, 1.0),
    ) -> list[Found]:
        """Propose, pool and classify.

        Args:
            image: as for :meth:`forward`.
            mask: as for :meth:`forward`.
            proposals: RoIs a picture at most.
            resized: input pixels over the picture's, in x and y.

        Returns:
            One entry a picture.
        """
        maps, (height, width) = self(image, mask), image.shape[-2:]
        found = []
        for number in range(len(image)):
            rois, _ = propose(
                maps.scores[number].float().cpu().numpy(),
                maps.deltas[number].float().cpu().numpy(),
                self.variant.anchors,
                height=height,
                width=width,
                before=self.variant.proposals_before_nms,
                after=proposals,
                resized=resized,
                mask=None if mask is None else mask[number, 0].cpu().numpy() > 0,
            )
            logits, deltas = self.head(pool_rois(maps.features[number], torch.from_numpy(rois)))
            boxes = clip(decode(rois, deltas.float().cpu().numpy()), height=height, width=width)
            found.append(
                Found(
                    rois=torch.from_numpy(to_exclusive(rois)),
                    probabilities=logits.float().softmax(dim=1).cpu(),
                    boxes=torch.from_numpy(to_exclusive(boxes.reshape(len(boxes), self.head.classes + 1, 4))),
                )
            )
        return found

    def compress(self) -> None:
        """Turn the trained head into the variant's compressed form, in place.

        Raises:
            ValueError: it is compressed already.
        """
        self.head = compress(self.head, thinned(self.variant.compressed, self.width))


class SharedRows(nn.Module):
    """What a PVANet computes before there are RoIs, its maps laid out a row a cell: the graph that is exported."""

    def __init__(self, network: PVANet) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Arguments of :class:`PVANet` -> scores [B, cells, 2A], deltas [B, cells, 4A], features [B, cells, C]."""
        maps = self.network(image, mask)
        return _rows(maps.scores), _rows(maps.deltas), _rows(maps.features)


class HeadSites(nn.Module):
    """A folded RoI head over RoIs that lie like the rows of a map one column wide: the graph that is exported.

    Fully connected layers are 1x1 convolutions there, so that the same converters, masks and kernels serve: a RoI whose
    mask is 0 is not computed.
    """

    def __init__(self, head: RoIHead) -> None:
        """Take the weights of ``head``, which :func:`fold` has relieved of its batch norms."""
        super().__init__()
        self.hidden = nn.ModuleList(
            nn.ModuleList(as_convolution(half) for half in head.parts(name)[0]) for name in ("fc6", "fc7")
        )
        self.cls_score, self.bbox_pred = as_convolution(head.cls_score), as_convolution(head.bbox_pred)

    def forward(self, pooled: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """[1, C * 36, R, 1] and [1, 1, R, 1] of zeros and ones -> logits [1, R, K + 1] and deltas [1, R, 4 (K + 1)]."""
        pyramid = MaskPyramid(mask)
        features = pyramid.apply(pooled)
        for halves in self.hidden:
            assert isinstance(halves, nn.ModuleList)
            for half in halves[:-1]:
                features = pyramid.apply(half(features))
            features = pyramid.apply(halves[-1](features).relu())
        return _rows(pyramid.apply(self.cls_score(features))), _rows(pyramid.apply(self.bbox_pred(features)))


def as_convolution(layer: nn.Linear) -> nn.Conv2d:
    """The 1x1 convolution that computes at every place what ``layer`` computes."""
    made = nn.Conv2d(layer.in_features, layer.out_features, 1, bias=layer.bias is not None)
    with torch.no_grad():
        made.weight.copy_(layer.weight[:, :, None, None])
        if made.bias is not None:
            made.bias.copy_(layer.bias)
    return made


def _rows(maps: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, H * W, C]; whole numbers, so that a graph has them as constants."""
    batch, channels = int(maps.shape[0]), int(maps.shape[1])
    return maps.permute(0, 2, 3, 1).reshape(batch, -1, channels)


def check_sides(*, height: int, width: int) -> None:
    """Raise ``ValueError`` unless both sides of an input, in pixels, are multiples of :data:`COARSEST`."""
    if height % COARSEST or width % COARSEST:
        raise ValueError(f"both sides should be multiples of {COARSEST}, got {height}x{width}")


def thinned(shape: HeadShape, width: float) -> HeadShape:
    """``shape`` in a network ``width`` times as wide."""

    def narrow(layer: HiddenShape) -> HiddenShape:
        rank = None if layer.rank is None else scaled(layer.rank, width)
        return replace(layer, outputs=scaled(layer.outputs, width), rank=rank)

    return HeadShape(fc6=narrow(shape.fc6), fc7=narrow(shape.fc7), dropout=shape.dropout)


class PVANetClassifier(Hidden):
    """The ImageNet network that the trunks of 9.0 and 9.1 come from: conv1 to conv5, fc6, fc7, fc8."""

    CAFFE_PARTS = ("trunk",)
    """Children whose own name is no part of a Caffe layer's name."""

    def __init__(self, variant: str, *, side: int = 192, classes: int = 1000, width: float = 1.0) -> None:
        """Make a network with the published files' starting weights.

        Args:
            variant: "9.0" or "9.1".
            side: height and width of the pictures: 192 as in training, or 224; fc6 has a weight for every place.
            classes: how many logits.
            width: as for :class:`PVANet`.

        Raises:
            UsageError: no such variant, or a side that is no multiple of 32.
            ValueError: ``width`` is not a positive number.
        """
        if variant not in ("9.0", "9.1"):
            raise UsageError(f"no PVANet classifier is called {variant!r}. There are: 9.0, 9.1")
        if side <= 0 or side % COARSEST:
            raise UsageError(f"a PVANet classifier needs a side that is a multiple of {COARSEST}, got {side}")
        trunk = Trunk(preactivation=variant == "9.1", width=width)
        layer = HiddenShape(outputs=4096, scale="bn_scale")
        shape = thinned(HeadShape(fc6=layer, fc7=layer, dropout=0.5), width)
        super().__init__(trunk.channels[-1] * (side // COARSEST) ** 2, shape)
        self.trunk, self.side = trunk, side
        self.fc8 = nn.Linear(shape.fc7.outputs, classes)
        fill(self.fc8)

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, 3, side, side] BGR minus the mean, and a mask as for :class:`PVANet` -> logits [B, classes].

        Raises:
            ValueError: pictures of another size.
        """
        if image.shape[-2:] != (self.side, self.side):
            raise ValueError(f"pictures should be {self.side}x{self.side}, got {image.shape[-2]}x{image.shape[-1]}")
        features = self.trunk(image, MaskPyramid(mask))[-1]
        logits: Tensor = self.fc8(self.hidden(features.flatten(1)))
        return logits
