"""Optimiser and learning rate of a pretraining run."""

from __future__ import annotations

import math

import torch

from edgekit.pretraining.backbones import find_backbone
from edgekit.pretraining.config import PretrainConfig
from edgekit.pretraining.lars import LARS, MOMENTUM, parameter_groups
from edgekit.pretraining.networks import Learner


def build_optimiser(learner: Learner, config: PretrainConfig) -> torch.optim.Optimizer:
    """Over the online network and the predictor; the target follows, and the probe has its own."""
    parts = find_backbone(config.backbone)
    trunk = dict(learner.online.encoder.named_parameters())
    named = {f"encoder.{name}": value for name, value in parts.published(trunk).items()}
    named |= learner.online.projector.named_parameters(prefix="projector")
    named |= learner.predictor.named_parameters(prefix="predictor")
    quirks = config.published_quirks and config.optimiser == "lars"
    groups = parameter_groups(named.items(), weight_decay=config.weight_decay, published_quirks=quirks)
    match config.optimiser:
        case "lars":
            return LARS(groups, lr=config.peak_rate, trust=config.trust)
        case "sgd":
            return torch.optim.SGD(groups, lr=config.peak_rate, momentum=MOMENTUM)
        case _:
            return torch.optim.AdamW(groups, lr=config.peak_rate)


def learning_rate(config: PretrainConfig, *, step: int, steps_per_epoch: int) -> float:
    """At ``step`` (from 0): rising from 0 in a line, then falling along a cosine to 0."""
    warmup, total = config.warmup_epochs * steps_per_epoch, config.epochs * steps_per_epoch
    if step < warmup:
        return config.peak_rate * step / warmup
    return config.peak_rate * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup))) / 2
