"""One training step of a masked detector: which mask each picture is shown under, and its losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekit.learning.batches import Batch, normalise
from edgekit.learning.config import TrainConfig
from edgekit.learning.detr import detr_step_losses
from edgekit.learning.hints import FeatureHints, hint_loss
from edgekit.learning.losses import objectness_loss
from edgekit.learning.one_stage import one_stage_losses
from edgekit.learning.two_stage import two_stage_losses
from edgekit.models.masked_detector import MaskedDetector
from edgekit.spec import DetectorSpec

ONE_STAGE_LOSSES = ("classification", "box", "objectness", "hint", "omg_hint")
TWO_STAGE_LOSSES = ("rpn_class", "rpn_box", "class", "box", "objectness")

DETR_LOSSES = ("class", "box", "giou", "encoder", "mask_prediction", "correlation", "objectness")
LOSSES = {"one_stage": ONE_STAGE_LOSSES, "two_stage": TWO_STAGE_LOSSES, "detr": DETR_LOSSES}
"""By kind of detector."""


def loss_names(spec: DetectorSpec) -> tuple[str, ...]:
    """What a step of this detector is made of, and what is watched, in the order of the log."""
    return LOSSES[spec.kind]


@dataclass(frozen=True)
class Losses:
    """The parts of the loss."""

    parts: Mapping[str, Tensor]
    """Scalars by the names of :func:`loss_names`; one that is not there was not computed."""

    watched: Mapping[str, Tensor] = field(default_factory=dict)
    """More scalars by these names, which are logged but not minimised."""

    def total(self, config: TrainConfig) -> Tensor:
        """What is minimised."""
        weights = {
            "hint": config.hint_weight,
            "objectness": config.omg_weight,
            "omg_hint": config.omg_weight * config.omg_hint_weight,
        }
        return torch.stack([weights.get(name, 1.0) * value for name, value in self.parts.items()]).sum()


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
        anchors: [A, 4], of that spec; what a two-stage detector proposes from, it knows itself.
        config: the run's.
        progress: 0..1 through the run.
        hints: a teacher's, if there is one.
    """
    images = normalise(batch.images, spec).contiguous(memory_format=torch.channels_last)
    omg_maps = model.omg.features(images)
    objectness = model.omg.predict(omg_maps[0])
    losses: dict[str, Tensor] = {}
    if objectness.requires_grad:
        losses["objectness"] = objectness_loss(objectness, batch.labels, batch.weights)
    lesson = hints.lesson(batch.images) if hints is not None else None
    if lesson is not None and objectness.requires_grad:
        losses["omg_hint"] = hint_loss(lesson.hints.omg, omg_maps, lesson.targets, None, batch.labels)
    if config.parts == "omg":
        return Losses(losses)
    mask = training_mask(model, objectness, batch, config=config, progress=progress)
    watched: dict[str, Tensor] = {}
    match spec.kind:
        case "one_stage":
            losses |= one_stage_losses(
                model.one_stage, images, mask, batch, spec=spec, anchors=anchors, config=config, lesson=lesson
            )
        case "two_stage":
            losses |= two_stage_losses(
                model.two_stage, images, mask, truth=batch.truth, chance=batch.chance, config=config
            )
        case "detr":
            parts, watched = detr_step_losses(
                model.detr, images, mask, truth=batch.truth, spec=spec, answers=config.token_answers
            )
            losses |= parts
    return Losses(losses, watched)


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
