"""Losses of a one-stage detector in a step: classes, boxes, and what a teacher hints at."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekit.learning.batches import Batch
from edgekit.learning.config import TrainConfig
from edgekit.learning.hints import Lesson, hint_loss
from edgekit.learning.losses import detection_loss
from edgekit.learning.opinions import class_opinions, columns_of
from edgekit.models.masking import MaskPyramid
from edgekit.models.mobilenetv2_ssdlite import MobileNetV2SSDLite
from edgekit.spec import DetectorSpec


def one_stage_losses(
    net: MobileNetV2SSDLite,
    images: Tensor,
    mask: Tensor | None,
    batch: Batch,
    *,
    spec: DetectorSpec,
    anchors: Tensor,
    config: TrainConfig,
    lesson: Lesson | None,
) -> dict[str, Tensor]:
    """``classification``, ``box`` and ``hint`` of a batch, scalars.

    Args:
        net: in training mode.
        images: [B, 3, H, W] normalised.
        mask: [B, 1, G, G] of zeros and ones; ``None`` is all ones.
        batch: the same pictures with their truth.
        spec: the model's at this input size.
        anchors: [A, 4], of that spec.
        config: the run's.
        lesson: what a teacher says of these pictures, if there is one.
    """
    truth = batch.truth
    if lesson is not None:
        columns = columns_of(spec.classes, lesson.hints.teacher.classes)
        truth = replace(truth, class_scores=class_opinions(lesson.view, truth, columns, weight=config.opinion_weight))
    pyramid = MaskPyramid(mask)
    maps = net.features(images, pyramid)
    logits, offsets = net.predict(maps, pyramid)
    classification, box = detection_loss(
        spec,
        logits=logits,
        offsets=offsets,
        anchors=anchors,
        active=active_anchors(spec, mask) if mask is not None else torch.ones_like(logits[..., 0], dtype=torch.bool),
        truth=truth,
    )
    hint = torch.zeros_like(box)
    if lesson is not None:
        hint = hint_loss(lesson.hints.detector, maps, lesson.targets, mask, batch.labels)
    return {"classification": classification, "box": box, "hint": hint}


def active_anchors(spec: DetectorSpec, mask: Tensor) -> Tensor:
    """[B, 1, G, G] -> [B, A] bool; ``edgekit.models.anchors.anchor_mask`` on tensors."""
    parts, level_mask = [], mask
    for level in spec.anchors:
        while level_mask.shape[-2] > level.rows:
            level_mask = F.max_pool2d(level_mask, kernel_size=2, stride=2, ceil_mode=True)
        parts.append(level_mask.flatten(1).bool().repeat_interleave(len(level.sizes), dim=1))
    return torch.cat(parts, dim=1)
