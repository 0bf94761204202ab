"""Which anchors learn which box: task-aligned assignment (TOOD, arXiv 2108.07755, section 3.2).

SSD matches by the overlap of the *anchor*; with few pictures and coarse maps that leaves small and odd boxes with one
positive or none. Task alignment ranks the anchors of each box by how well the network itself scores and places the
box, takes the best few, and asks of each the score that its overlap deserves.

B batch, A anchors, N boxes (padded), C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

POSITIVES = 10
"""Anchors for each box at most (TOOD uses 13 on five maps that start at stride 8; ours start at 16)."""

SCORE_POWER, IOU_POWER = 1.0, 6.0
"""Alpha and beta of TOOD's alignment metric."""

IGNORE_IOU = 0.4
"""An anchor whose predicted box overlaps an ignored box this much is neither positive nor negative."""


@dataclass(frozen=True)
class Targets:
    """What each anchor should answer."""

    boxes: Tensor
    """[B, A, 4] xyxy, meaningful where positive."""

    scores: Tensor
    """[B, A, C] in 0..1, zero for background."""

    positive: Tensor
    """[B, A] bool."""

    counted: Tensor
    """[B, A] bool: takes part in the classification loss (active, and not over an ignored box)."""


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU of boxes [..., N, 4] and [..., A, 4] (xyxy) -> [..., N, A]."""
    top_left = torch.maximum(first[..., :, None, :2], second[..., None, :, :2])
    bottom_right = torch.minimum(first[..., :, None, 2:], second[..., None, :, 2:])
    overlap = (bottom_right - top_left).clamp_min(0).prod(dim=-1)
    area_first = (first[..., 2:] - first[..., :2]).clamp_min(0).prod(dim=-1)
    area_second = (second[..., 2:] - second[..., :2]).clamp_min(0).prod(dim=-1)
    return overlap / (area_first[..., :, None] + area_second[..., None, :] - overlap).clamp_min(1e-7)


@torch.no_grad()
def assign(
    *,
    scores: Tensor,
    boxes: Tensor,
    anchors: Tensor,
    active: Tensor,
    truth_boxes: Tensor,
    truth_classes: Tensor,
    truth_kind: Tensor,
    truth_scores: Tensor | None = None,
) -> Targets:
    """Assign boxes to anchors.

    Args:
        scores: [B, A, C] predicted scores, 0..1.
        boxes: [B, A, 4] predicted boxes, xyxy input pixels.
        anchors: [A, 4] centre x, centre y, width, height.
        active: [B, A] bool, inside the mask.
        truth_boxes: [B, N, 4] xyxy input pixels, padded with zeros.
        truth_classes: [B, N] long.
        truth_kind: [B, N] 1 = object, 0 = padding, -1 = ignored box.
        truth_scores: [B, N, C] in 0..1, what a perfectly placed anchor of each box is asked for; ``None`` asks 1 for
            the box's class.
    """
    batch, count, classes = scores.shape
    objects = truth_kind == 1
    overlap = pairwise_iou(truth_boxes, boxes)
    if truth_boxes.shape[1] == 0:
        return Targets(
            boxes=torch.zeros_like(boxes),
            scores=torch.zeros_like(scores),
            positive=torch.zeros_like(active),
            counted=active.clone(),
        )

    # Candidates: anchors whose centre lies in the box, stretched to the anchor's own half size for boxes that fall
    # between the centres of a coarse map, and whose shape is not hopeless.
    centres, sizes = anchors[None, None, :, :2], anchors[None, None, :, 2:]
    box_centres = ((truth_boxes[..., :2] + truth_boxes[..., 2:]) / 2)[:, :, None]
    box_sizes = (truth_boxes[..., 2:] - truth_boxes[..., :2]).clamp_min(1e-3)[:, :, None]
    reach = torch.maximum(box_sizes / 2, torch.minimum(sizes / 4, torch.full_like(sizes, 12.0)))
    inside = ((centres - box_centres).abs() <= reach).all(dim=-1)
    ratio = torch.maximum(box_sizes / sizes, sizes / box_sizes).amax(dim=-1)
    candidates = inside & (ratio < 6.0) & active[:, None] & objects[..., None]

    index = truth_classes[:, :, None].expand(batch, truth_classes.shape[1], count)
    class_scores = scores.transpose(1, 2).gather(1, index.clamp_min(0))
    alignment = class_scores.pow(SCORE_POWER) * overlap.pow(IOU_POWER) * candidates
    best = alignment.topk(min(POSITIVES, count), dim=-1)
    chosen = torch.zeros_like(candidates).scatter_(-1, best.indices, best.values > 1e-9) & candidates

    # An anchor wanted by several boxes learns the one it overlaps most.
    owner_overlap, owner = torch.where(chosen, overlap, torch.full_like(overlap, -1)).max(dim=1)
    positive = owner_overlap >= 0
    chosen &= torch.nn.functional.one_hot(owner, truth_boxes.shape[1]).transpose(1, 2).bool()

    # The best-aligned anchor of a box is asked for its overlap, the others for proportionally less.
    alignment = alignment * chosen
    peak = alignment.amax(dim=-1, keepdim=True)
    peak_overlap = (overlap * chosen).amax(dim=-1, keepdim=True)
    wanted = (alignment / peak.clamp_min(1e-12) * peak_overlap).amax(dim=1)
    if truth_scores is None:
        truth_scores = torch.nn.functional.one_hot(truth_classes.clamp_min(0), classes)
    target_scores = truth_scores.gather(1, owner[..., None].expand(-1, -1, classes)) * (wanted * positive)[..., None]

    over_ignored = ((overlap > IGNORE_IOU) & (truth_kind == -1)[..., None]).any(dim=1)
    return Targets(
        boxes=truth_boxes.gather(1, owner[..., None].expand(-1, -1, 4)),
        scores=target_scores.to(scores.dtype),
        positive=positive,
        counted=active & (positive | ~over_ignored),
    )
