"""One training step of a masked detector: which mask each picture is shown under, and its losses."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekit.learning.batches import Batch, normalise
from edgekit.learning.config import TrainConfig
from edgekit.learning.hints import FeatureHints, hint_loss
from edgekit.learning.losses import detection_loss, objectness_loss
from edgekit.learning.opinions import class_opinions, columns_of
from edgekit.models.masked_detector import MaskedDetector
from edgekit.models.masking import MaskPyramid
from edgekit.spec import DetectorSpec


@dataclass(frozen=True)
class Losses:
    """The parts of the loss, scalars."""

    classification: Tensor
    box: Tensor
    objectness: Tensor
    hint: Tensor
    omg_hint: Tensor

    def total(self, config: TrainConfig) -> Tensor:
        """What is minimised."""
        detector = self.classification + self.box + config.hint_weight * self.hint
        return detector + config.omg_weight * (self.objectness + config.omg_hint_weight * self.omg_hint)


def step_losses(
    model: MaskedDetector,
    batch: Batch,
    *,
    spec: DetectorSpec,
    anchors: Tensor,
    config: TrainConfig,
    progress: float,
    hints: FeatureHints | None = None,
) -> Losses:
    """Forward one batch.

    Args:
        model: in training mode.
        batch: on the model's device.
        spec: the model's spec at this batch's input size.
        anchors: [A, 4], of that spec.
        config: the run's.
        progress: 0..1 through the run.
        hints: a teacher's, if there is one.
    """
    images = normalise(batch.images, spec).contiguous(memory_format=torch.channels_last)
    omg_maps = model.omg.features(images)
    objectness = model.omg.predict(omg_maps[0])
    from_masks = objectness_loss(objectness, batch.labels, batch.weights)
    nothing = hint = omg_hint = torch.zeros_like(from_masks)
    if hints is not None:
        view = hints.teacher(batch.images)
        targets = hints.targets(view)
        if objectness.requires_grad:
            omg_hint = hint_loss(hints.omg, omg_maps, targets, None, batch.labels)
    if config.parts == "omg":
        return Losses(nothing, nothing, from_masks, nothing, omg_hint)
    truth = batch.truth
    if hints is not None:
        columns = columns_of(spec.classes, hints.teacher.classes)
        truth = replace(truth, class_scores=class_opinions(view, truth, columns, weight=config.opinion_weight))
    mask = training_mask(model, objectness, batch, config=config, progress=progress)
    pyramid = MaskPyramid(mask)
    maps = model.detector.features(images, pyramid)
    logits, offsets = model.detector.predict(maps, pyramid)
    classification, box = detection_loss(
        spec,
        logits=logits,
        offsets=offsets,
        anchors=anchors,
        active=active_anchors(spec, mask) if mask is not None else torch.ones_like(logits[..., 0], dtype=torch.bool),
        truth=truth,
    )
    if hints is not None:
        hint = hint_loss(hints.detector, maps, targets, mask, batch.labels)
    return Losses(classification, box, from_masks if objectness.requires_grad else nothing, hint, omg_hint)


def training_mask(
    model: MaskedDetector, objectness: Tensor, batch: Batch, *, config: TrainConfig, progress: float
) -> Tensor | None:
    """[B, 1, G, G]: none for some pictures, the true boxes' for some, the objectness network's own for the rest.

    Early on the objectness network finds little, and a detector whose objects are blacked out learns nothing, so
    true boxes are added to its masks during the warm-up.
    """
    if config.masks == "apart":
        return None
    own = model.binary_mask(objectness)
    if progress < config.mask_warmup:
        own = torch.maximum(own, batch.labels)
    truth = F.max_pool2d(batch.labels, kernel_size=3, stride=1, padding=1)
    chance = batch.chance[:, None, None, None]
    off = chance < config.mask_off_share
    use_truth = chance < config.mask_off_share + config.mask_truth_share
    return torch.where(off, torch.ones_like(own), torch.where(use_truth, truth, own))


def active_anchors(spec: DetectorSpec, mask: Tensor) -> Tensor:
    """[B, 1, G, G] -> [B, A] bool; ``edgekit.models.anchors.anchor_mask`` on tensors."""
    parts, level_mask = [], mask
    for level in spec.anchors:
        while level_mask.shape[-2] > level.rows:
            level_mask = F.max_pool2d(level_mask, kernel_size=2, stride=2, ceil_mode=True)
        parts.append(level_mask.flatten(1).bool().repeat_interleave(len(level.sizes), dim=1))
    return torch.cat(parts, dim=1)
