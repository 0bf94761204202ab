"""The networks of SCRL and BYOL: online and target, each a trunk with a projector; a predictor; a linear probe.

Shapes and names follow the published program (https://github.com/kakaobrain/scrl, ``models/``). For ResNet-50 they have
23,508,032 (trunk), 9,449,472 (projector) and 2,109,440 (predictor) parameters. B views, C channels, H x W their pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgekit.models.backbone import EVERYWHERE
from edgekit.pretraining.backbones import STRIDE, find_backbone
from edgekit.pretraining.roi_align import roi_align


class Head(nn.Module):
    """Projector or predictor: linear, batch norm, ReLU, linear without bias."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(inputs, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, outputs, bias=False),
        )

    def forward(self, rows: Tensor) -> Tensor:
        """[R, inputs] -> [R, outputs]."""
        result: Tensor = self.net(rows)
        return result


class Branch(nn.Module):
    """A trunk and its projector: the online network, or the target.

    Args:
        backbone: one of ``edgekit.pretraining.backbones.BACKBONES``.
        width: channels over those of the published trunk.
        hidden: of the projector.
        outputs: of the projector.
    """

    def __init__(self, backbone: str, *, width: float, hidden: int, outputs: int) -> None:
        super().__init__()
        self.encoder, self.channels = find_backbone(backbone).build(width)
        self.projector = Head(self.channels, hidden, outputs)

    def forward(self, views: Tensor, boxes: Tensor | None) -> tuple[Tensor, Tensor]:
        """Normalised views [B, 3, H, W] -> projections, and the mean of each map [B, C].

        Projections are [R, outputs], of ``boxes`` [R, 5] (view, left, top, right, bottom in pixels); without boxes
        [B, outputs], of whole views.
        """
        features = self.encoder(views, EVERYWHERE)[-1]
        pooled = features.mean(dim=(2, 3))
        rows = pooled if boxes is None else roi_align(features, boxes, scale=1 / STRIDE)[:, :, 0, 0]
        return self.projector(rows), pooled


class Learner(nn.Module):
    """All of them. Only the target takes no gradients; it starts from random weights of its own, as published."""

    def __init__(self, backbone: str, *, width: float, hidden: int, outputs: int, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.online = Branch(backbone, width=width, hidden=hidden, outputs=outputs)
        self.target = Branch(backbone, width=width, hidden=hidden, outputs=outputs)
        self.target.requires_grad_(False)
        self.predictor = Head(outputs, hidden, outputs)
        self.probe = nn.Linear(self.online.channels, classes) if classes else None
        """A linear classifier of pooled features, which learns beside them and teaches them nothing."""

    def normalise(self, views: Tensor) -> Tensor:
        """uint8 RGB [B, 3, H, W] -> float32, as the trunk wants it."""
        rules = find_backbone(self.backbone)
        mean, std = (views.new_tensor(values, dtype=torch.float32)[:, None, None] for values in (rules.mean, rules.std))
        return ((views.float() - mean) / std).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Move the target's parameters towards the online network's: ``momentum`` of what they were stays.

        The buffers of batch norms are left alone: the target measures its own, being in training mode.
        """
        for mine, theirs in zip(self.target.parameters(), self.online.parameters(), strict=True):
            mine.lerp_(theirs, 1 - momentum)


def unit(rows: Tensor) -> Tensor:
    """[R, D] -> rows of length 1, at least in float32."""
    return nn.functional.normalize(rows.to(torch.promote_types(rows.dtype, torch.float32)), dim=1)


def distance(predictions: Tensor, targets: Tensor) -> Tensor:
    """[R, D] each -> [R] squared distance of the directions, 2 - 2 cos: 0..4 (arXiv 2006.07733, equation 2)."""
    return 2 - 2 * (unit(predictions) * unit(targets)).sum(dim=1)


def momentum_at(step: int, total_steps: int, start: float) -> float:
    """The target's after ``step`` earlier updates: from ``start`` along a cosine to 1 (arXiv 2006.07733, 3.2)."""
    return 1 - (1 - start) * (math.cos(math.pi * step / total_steps) + 1) / 2
