"""Losses of a masked detector and of its objectness network.

Classification is the varifocal loss (arXiv 2008.13367, equation 2, but a positive weighs at least what a false alarm of
its score would), boxes are GIoU (arXiv 1902.09630), weighted 1 and 2.5 as in PP-YOLOE (arXiv 2203.16250); objectness is
weighted binary cross-entropy. Anchors outside the mask take no part: at run time they do not exist.

B batch, A anchors, C classes, G grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekit.learning.assignment import Targets, assign
from edgekit.learning.distributed import sum_over_processes
from edgekit.models.anchors import MAX_LOG_SIZE
from edgekit.spec import DetectorSpec

BOX_WEIGHT = 2.5
VARIFOCAL_ALPHA, VARIFOCAL_GAMMA = 0.75, 2.0


@dataclass(frozen=True)
class Truth:
    """The boxes of a batch, padded to the longest."""

    boxes: Tensor
    """[B, N, 4] xyxy input pixels."""

    classes: Tensor
    """[B, N] long."""

    kind: Tensor
    """[B, N] 1 object, 0 padding, -1 ignored."""

    class_scores: Tensor | None = None
    """[B, N, C] in 0..1, scores to ask for at each box (``edgekit.learning.opinions``); ``None``: 1 of its class."""


def decode_boxes(spec: DetectorSpec, anchors: Tensor, offsets: Tensor) -> Tensor:
    """``edgekit.models.anchors.decode`` on tensors: anchors [A, 4], offsets [B, A, 4] -> [B, A, 4] xyxy."""
    centre = anchors[:, :2] + offsets[..., :2] * spec.centre_variance * anchors[:, 2:]
    half = anchors[:, 2:] * torch.exp((offsets[..., 2:] * spec.size_variance).clamp_max(MAX_LOG_SIZE)) / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def detection_loss(
    spec: DetectorSpec, *, logits: Tensor, offsets: Tensor, anchors: Tensor, active: Tensor, truth: Truth
) -> tuple[Tensor, Tensor]:
    """Classification and box loss of a batch, each a scalar averaged over the positives of all processes.

    Args:
        spec: the detector's.
        logits: [B, A, C].
        offsets: [B, A, 4].
        anchors: [A, 4] from ``anchor_boxes``.
        active: [B, A] bool.
        truth: the batch's boxes.
    """
    boxes = decode_boxes(spec, anchors, offsets.float())
    scores = torch.sigmoid(logits.float())
    targets: Targets = assign(
        scores=scores.detach(),
        boxes=boxes.detach(),
        anchors=anchors,
        active=active,
        truth_boxes=truth.boxes,
        truth_classes=truth.classes,
        truth_kind=truth.kind,
        truth_scores=truth.class_scores,
    )
    positives = sum_over_processes(targets.scores.sum()).clamp_min(1.0)
    # A teacher may ask for little, and much is then as wrong as where nothing is asked.
    weight = VARIFOCAL_ALPHA * scores.detach().pow(VARIFOCAL_GAMMA)
    weight = torch.maximum(targets.scores, weight) * targets.counted[..., None]
    classification = F.binary_cross_entropy_with_logits(logits.float(), targets.scores, weight, reduction="sum")
    importance = targets.scores.sum(dim=-1)[targets.positive]
    overlap = giou(boxes[targets.positive], targets.boxes[targets.positive])
    return classification / positives, BOX_WEIGHT * ((1 - overlap) * importance).sum() / positives


def objectness_loss(objectness: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Weighted binary cross-entropy, averaged over the weights of all processes; everything [B, 1, G, G]."""
    loss = F.binary_cross_entropy_with_logits(objectness.float(), labels, weights, reduction="sum")
    return loss / sum_over_processes(weights.sum()).clamp_min(1.0)


def giou(first: Tensor, second: Tensor, *, least_area: float = 1e-7) -> Tensor:
    """Generalised IoU of boxes [..., 4] and [..., 4] pair by pair, broadcast -> [...] in (-1, 1].

    Args:
        first: xyxy, in any unit.
        second: in the same unit.
        least_area: what is divided by at least, in the unit's square: far less than a box that matters.
    """
    overlap = (
        (torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2]))
        .clamp_min(0)
        .prod(-1)
    )
    hull = (torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(first[..., :2], second[..., :2])).prod(-1)
    union = (first[..., 2:] - first[..., :2]).prod(-1) + (second[..., 2:] - second[..., :2]).prod(-1) - overlap
    return overlap / union.clamp_min(least_area) - (hull - union) / hull.clamp_min(least_area)
