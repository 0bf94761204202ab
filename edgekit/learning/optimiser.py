"""Optimiser, learning-rate schedule and which parameters they move."""

from __future__ import annotations

import math

import torch
from torch import nn

from edgekit.learning.config import TrainConfig
from edgekit.models.masked_detector import MaskedDetector

FINAL_RATE = 0.01
"""The cosine ends at this share of the peak."""

PLATEAU_FACTOR = 0.1


def freeze(model: MaskedDetector, config: TrainConfig) -> None:
    """Stop gradients into the trunk's first blocks and into a network that does not learn; call once at the start."""
    for module in _frozen_modules(model, config):
        module.requires_grad_(False)


def training_mode(model: MaskedDetector, config: TrainConfig) -> None:
    """Training mode, except for batch norms that keep their statistics."""
    model.train()
    if config.freeze_statistics:
        model.detector.backbone.eval()
    for module in _frozen_modules(model, config):
        module.eval()


def _frozen_modules(model: MaskedDetector, config: TrainConfig) -> list[nn.Module]:
    if config.parts == "omg":
        return [model.detector]
    fixed: list[nn.Module] = [model.omg] if config.parts == "detector" else []
    backbone = model.detector.backbone
    return [*fixed, backbone.stem, *backbone.blocks[: config.frozen_blocks]] if config.frozen_blocks else fixed


def build_optimiser(
    model: MaskedDetector, config: TrainConfig, *, pretrained: bool, further: nn.Module | None = None
) -> torch.optim.Optimizer:
    """Four groups: (trunk or new) x (decayed or not); each remembers its share of the peak rate as ``share``.

    ``further`` is what learns beside the model and is not part of it.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in (*model.named_parameters(), *(further.named_parameters() if further else ())):
        if parameter.requires_grad:
            old = pretrained and name.startswith(("detector.backbone.", "omg.stem", "omg.stride_"))
            groups.setdefault((old, parameter.ndim > 1), []).append(parameter)
    settings = [
        {
            "params": parameters,
            "share": config.backbone_rate if old else 1.0,
            "weight_decay": config.weight_decay if decayed else 0.0,
            "lr": config.learning_rate,
        }
        for (old, decayed), parameters in sorted(groups.items())
    ]
    if config.optimiser == "sgd":
        return torch.optim.SGD(settings, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(settings, betas=(0.9, 0.999))


def set_learning_rate(
    optimiser: torch.optim.Optimizer, config: TrainConfig, *, step: int, total_steps: int, plateaus: int
) -> float:
    """Set the rates for ``step`` (from 0) and return the peak group's."""
    rate = config.learning_rate
    if step < config.warmup_steps:
        rate *= (step + 1) / config.warmup_steps
    elif config.schedule == "plateau":
        rate *= PLATEAU_FACTOR**plateaus
    else:
        done = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
        rate *= FINAL_RATE + (1 - FINAL_RATE) * (1 + math.cos(math.pi * min(1.0, done))) / 2
    for group in optimiser.param_groups:
        group["lr"] = rate * group["share"]
    return rate
