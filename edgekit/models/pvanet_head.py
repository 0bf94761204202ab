"""What PVANet predicts with: the region proposal network, RoI pooling in PyTorch, and the classifier of RoIs.

The classifier's two hidden layers hold nine tenths of the network. The compressed forms replace each by two thin ones,
started from a truncated singular value decomposition (arXiv 1608.08021, section 4; Fast R-CNN, arXiv 1504.08083, 3.1).

B batch, A anchors a cell, R RoIs, K classes without the background.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.models.masking import MaskPyramid
from edgekit.models.pvanet_layers import BATCH_NORM_EPS, Scale, absorb, convolution, fill, normalise
from edgekit.models.pvanet_rois import POOLED, roi_edges


class RPN(nn.Module):
    """One hidden convolution, then scores and box corrections for every anchor of every cell."""

    def __init__(self, inputs: int, hidden: int, *, kernel: int, anchors: int) -> None:
        super().__init__()
        self.rpn_conv1 = convolution(inputs, hidden, kernel, bias=True)
        self.rpn_cls_score = nn.Conv2d(hidden, 2 * anchors, 1)
        self.rpn_bbox_pred = nn.Conv2d(hidden, 4 * anchors, 1)
        for layer in (self.rpn_conv1, self.rpn_cls_score, self.rpn_bbox_pred):
            _start_small(layer, 0.01)

    def forward(self, features: Tensor, pyramid: MaskPyramid) -> tuple[Tensor, Tensor]:
        """[B, inputs, H, W] -> logits [B, 2A, H, W], background first, and deltas [B, 4A, H, W]; 0 off the mask."""
        hidden = pyramid.apply(self.rpn_conv1(features).relu())
        return pyramid.apply(self.rpn_cls_score(hidden)), pyramid.apply(self.rpn_bbox_pred(hidden))


def pool_rois(features: Tensor, rois: Tensor) -> Tensor:
    """[R, C, 6, 6] maxima in the RoIs of one picture; gradients reach ``features`` [C, H, W].

    The same numbers as ``edgekit.models.pvanet_rois.pool_rois``, of which ``rois`` [R, 4] has the convention.
    """
    channels, rows, columns = features.shape
    if not len(rois):
        return features.new_zeros(0, channels, POOLED, POOLED)
    cells = torch.from_numpy(roi_edges(rois.detach().cpu().float().numpy()))
    # Cells outside the map are minus infinity: they win no maximum, and a bin of nothing else is empty.
    low = (-cells.amin(dim=0)).clamp_min(0).tolist()
    high = (cells.amax(dim=0)[2:] - torch.tensor([columns - 1, rows - 1])).clamp_min(0).tolist()
    padded = F.pad(features, (low[0], high[0], low[1], high[1]), value=float("-inf"))
    pooled = torch.stack(
        [
            F.adaptive_max_pool2d(
                padded[:, low[1] + top : low[1] + bottom + 1, low[0] + left : low[0] + right + 1], POOLED
            )
            for left, top, right, bottom in cells.tolist()
        ]
    )
    return pooled.masked_fill(pooled == float("-inf"), 0.0)


@dataclass(frozen=True, kw_only=True)
class HiddenShape:
    """One hidden layer of the classifier."""

    outputs: int
    """Features it makes."""

    rank: int | None = None
    """Features between its two halves, ``NAME_L`` and ``NAME_U``; ``None`` where it is one layer, ``NAME``."""

    low_bias: bool = True
    """Whether ``NAME_L`` has a bias."""

    norm: bool = True
    """Whether BatchNorm follows, as ``NAME/bn``."""

    scale: str | None = "scale"
    """What the Scale behind BatchNorm is called below ``NAME``; ``None`` where there is none."""


@dataclass(frozen=True, kw_only=True)
class HeadShape:
    """The classifier of RoIs."""

    fc6: HiddenShape
    """Reads the pooled features, in the order channel, row, column."""

    fc7: HiddenShape
    """Reads fc6."""

    dropout: float
    """Share of hidden features that training leaves out."""


class Norms(nn.Module):
    """BatchNorm and Scale below the name of a layer that is called otherwise (``fc6_U`` in front of ``fc6/bn``)."""

    def __init__(self, shape: HiddenShape) -> None:
        super().__init__()
        add_norms(self, shape)


class NormedLinear(nn.Linear):
    """A fully connected layer with BatchNorm and Scale below its own name."""

    def __init__(self, inputs: int, shape: HiddenShape) -> None:
        super().__init__(inputs, shape.outputs)
        add_norms(self, shape)


def add_norms(module: nn.Module, shape: HiddenShape) -> None:
    """Give ``module`` the children that ``shape`` asks for."""
    if shape.norm:
        module.add_module("bn", nn.BatchNorm1d(shape.outputs, eps=BATCH_NORM_EPS, affine=False))
    if shape.scale is not None:
        module.add_module(shape.scale, Scale(shape.outputs))


def norms_of(module: nn.Module) -> tuple[nn.BatchNorm1d | None, Scale | None]:
    """BatchNorm and Scale that stand below ``module``."""
    norm = next((child for child in module.children() if isinstance(child, nn.BatchNorm1d)), None)
    scale = next((child for child in module.children() if isinstance(child, Scale)), None)
    return norm, scale


class Hidden(nn.Module):
    """Base of a classifier: the hidden layers fc6 and fc7, whole or in two halves."""

    def __init__(self, inputs: int, shape: HeadShape) -> None:
        super().__init__()
        self.shape = shape
        for name, layer in (("fc6", shape.fc6), ("fc7", shape.fc7)):
            if layer.rank is None:
                self._add(name, NormedLinear(inputs, layer))
            else:
                self._add(f"{name}_L", nn.Linear(inputs, layer.rank, bias=layer.low_bias))
                self._add(f"{name}_U", nn.Linear(layer.rank, layer.outputs))
                if layer.norm or layer.scale is not None:
                    self.add_module(name, Norms(layer))
            inputs = layer.outputs

    def _add(self, name: str, layer: nn.Linear) -> None:
        fill(layer)
        self.add_module(name, layer)

    def hidden(self, features: Tensor) -> Tensor:
        """[R, inputs] -> [R, outputs of fc7]."""
        for name in ("fc6", "fc7"):
            halves, norms = self.parts(name)
            for half in halves:
                features = half(features)
            if norms is not None:
                features = normalise(features, *norms_of(norms))
            # Dropout before ReLU, as published; each commutes with the other.
            features = F.dropout(features, self.shape.dropout, self.training).relu()
        return features

    def parts(self, name: str) -> tuple[list[nn.Linear], nn.Module | None]:
        """The fully connected layers of ``fc6`` or ``fc7`` in their order, and what its norms stand below, if any."""
        found = [self._modules.get(name + end) for end in ("_L", "_U", "")]
        return [layer for layer in found if isinstance(layer, nn.Linear)], found[-1]

    def fold_norms(self) -> None:
        """See ``edgekit.models.pvanet_layers.fold``."""
        for name in ("fc6", "fc7"):
            halves, norms = self.parts(name)
            if norms is None:
                continue
            absorb(halves[-1], *norms_of(norms))
            for child in [key for key, part in norms.named_children() if isinstance(part, nn.BatchNorm1d | Scale)]:
                delattr(norms, child)
            if not isinstance(norms, nn.Linear):
                delattr(self, name)
        self.shape = replace(
            self.shape,
            fc6=replace(self.shape.fc6, norm=False, scale=None),
            fc7=replace(self.shape.fc7, norm=False, scale=None),
        )


class RoIHead(Hidden):
    """Classes and box corrections of pooled RoIs."""

    def __init__(self, channels: int, classes: int, shape: HeadShape) -> None:
        """Make the head.

        Args:
            channels: of the pooled features.
            classes: K.
            shape: the hidden layers.
        """
        super().__init__(channels * POOLED * POOLED, shape)
        self.channels, self.classes = channels, classes
        self.cls_score = nn.Linear(shape.fc7.outputs, classes + 1)
        self.bbox_pred = nn.Linear(shape.fc7.outputs, 4 * (classes + 1))
        _start_small(self.cls_score, 0.01)
        _start_small(self.bbox_pred, 0.001)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """[R, channels, 6, 6] -> logits [R, K + 1], background first, and deltas [R, 4 (K + 1)], four a class."""
        features = self.hidden(pooled.flatten(1))
        return self.cls_score(features), self.bbox_pred(features)


def compress(head: RoIHead, shape: HeadShape) -> RoIHead:
    """``head`` in the form ``shape``, whose hidden layers are in two halves.

    L is the singular values times the right vectors, U the left vectors, and the bias stands on U
    (``tools/compress_net.py``). What ``shape`` has no layer for, as the Scale of 9.1's fc6, the weight absorbs first; a
    BatchNorm in front of an absorbed Scale then changes nothing until it is trained. With all singular values kept, the
    result computes what ``head`` does.

    Raises:
        ValueError: ``shape`` does not fit, or has more ranks than a layer has singular values.
    """
    made = RoIHead(head.channels, head.classes, shape).to(head.cls_score.weight)
    for name, form in (("fc6", shape.fc6), ("fc7", shape.fc7)):
        halves, norms = head.parts(name)
        if len(halves) != 1 or form.rank is None or form.outputs != halves[0].out_features:
            raise ValueError(
                f"{name} is compressed from one layer of {halves[-1].out_features} outputs to two; "
                f"the head has {len(halves)} of them, and the new form is {form}"
            )
        if form.rank > min(halves[0].weight.shape):
            raise ValueError(
                f"{name} has {min(halves[0].weight.shape)} singular values, and {form.rank} were asked for"
            )
        whole = copy.deepcopy(halves[0])
        norm, scale = (None, None) if norms is None else norms_of(norms)
        (low, high), target = made.parts(name)
        kept_norm, kept_scale = (None, None) if target is None else norms_of(target)
        with torch.no_grad():
            if norm is not None and kept_norm is not None and (kept_scale is not None or scale is None):
                kept_norm.load_state_dict(norm.state_dict())
                if scale is not None and kept_scale is not None:
                    kept_scale.load_state_dict(scale.state_dict())
            else:
                absorb(whole, norm, scale)
                if kept_norm is not None:
                    kept_norm.running_var.fill_(1 - kept_norm.eps)  # type: ignore[union-attr]
            left = left_singular_vectors(whole.weight, form.rank)
            low.weight.copy_(left.T @ whole.weight.double())
            high.weight.copy_(left)
            high.bias.copy_(whole.bias)
            if low.bias is not None:
                low.bias.zero_()
    for name in ("cls_score", "bbox_pred"):
        made.get_submodule(name).load_state_dict(head.get_submodule(name).state_dict())
    return made.train(head.training)


def left_singular_vectors(matrix: Tensor, rank: int) -> Tensor:
    """The left singular vectors [M, rank] of ``matrix`` [M, N] that belong to its largest singular values, in double.

    They are eigenvectors of the matrix times itself, which for a fully connected layer of PVANet take seconds where a
    decomposition of the matrix takes minutes.
    """
    wide = matrix.double()
    _, vectors = torch.linalg.eigh(wide @ wide.T)
    largest: Tensor = vectors[:, -rank:].flip(1)
    return largest


def _start_small(layer: nn.Conv2d | nn.Linear, deviation: float) -> None:
    """Start a layer that predicts as the published files do."""
    nn.init.normal_(layer.weight, std=deviation)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
