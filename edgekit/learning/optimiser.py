"""Optimiser, learning-rate schedule and which parameters they move."""

from __future__ import annotations

import math

import torch
from torch import nn

from edgekit.learning.config import TrainConfig
from edgekit.learning.roi_targets import DEVIATIONS
from edgekit.models.masked_detector import MaskedDetector
from edgekit.models.pvanet_layers import ConvCReLU, CReLUConv

FINAL_RATE = 0.01
"""The cosine ends at this share of the peak."""

PLATEAU_FACTOR = 0.1

OMG, TRUNK, HEAD = "omg", "trunk", "head"
"""Parts of a model that may have started from weights; the head is a two-stage detector's classifier of RoIs."""

OLD_LAYERS = {OMG: ("omg.stem", "omg.stride_"), TRUNK: ("detector.backbone.", "detector.trunk.")}
"""Names, or their beginnings, of the layers that learn more slowly where their part started from weights."""


SAMPLING = frozenset({"reference_points", "sampling_offsets"})
"""Parts of the names of a DETR's layers that say where attention looks."""


def freeze(model: MaskedDetector, config: TrainConfig) -> None:
    """Stop gradients into the trunk's first blocks and into a network that does not learn; call once at the start."""
    for module in _frozen_modules(model, config):
        module.requires_grad_(False)


def training_mode(model: MaskedDetector, config: TrainConfig, *, started: frozenset[str]) -> None:
    """Training mode, except for batch norms that keep their statistics; ``started`` as for :func:`build_optimiser`."""
    model.train()
    if config.freeze_statistics:
        model.trunk.eval()
        if HEAD in started:
            for module in model.two_stage.head.modules():
                if isinstance(module, nn.BatchNorm1d):
                    module.eval()
    for module in _frozen_modules(model, config):
        module.eval()


def _frozen_modules(model: MaskedDetector, config: TrainConfig) -> list[nn.Module]:
    if config.parts == "omg":
        return [model.detector]
    if config.parts == "head":
        net = model.two_stage
        return [model.omg, net.trunk, net.hyper, net.rpn]
    fixed: list[nn.Module] = [model.omg] if config.parts == "detector" else []
    return [*fixed, *model.trunk_blocks()[: 1 + config.frozen_blocks]] if config.frozen_blocks else fixed


def build_optimiser(
    model: MaskedDetector, config: TrainConfig, *, started: frozenset[str], further: nn.Module | None = None
) -> torch.optim.Optimizer:
    """One group for each (share of the peak rate, decayed or not); each remembers its share as ``share``.

    Args:
        model: as :func:`freeze` left it.
        config: the run's.
        started: the parts of ``model`` that have starting weights.
        further: what learns beside the model and is not part of it.
    """
    old = tuple(name for part in started for name in OLD_LAYERS.get(part, ()))
    shares = _detector_shares(model, config)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in (*model.named_parameters(), *(further.named_parameters() if further else ())):
        if parameter.requires_grad:
            share = (config.backbone_rate if name.startswith(old) else 1.0) * shares.get(id(parameter), 1.0)
            decayed = config.decay_everything or parameter.ndim > 1
            groups.setdefault((share, decayed), []).append(parameter)
    settings = [
        {
            "params": parameters,
            "share": share,
            "weight_decay": config.weight_decay if decayed else 0.0,
            "lr": config.learning_rate,
        }
        for (share, decayed), parameters in sorted(groups.items(), key=lambda group: group[0])
    ]
    if config.optimiser == "sgd":
        return torch.optim.SGD(settings, momentum=0.9, nesterov=config.nesterov)
    return torch.optim.AdamW(settings, betas=(0.9, 0.999))


def _detector_shares(model: MaskedDetector, config: TrainConfig) -> dict[int, float]:
    """By a parameter's id its rate relative to the detector's, where it is another."""
    match model.spec.kind:
        case "one_stage":
            return {}
        case "two_stage":
            return _pvanet_shares(model, config)
        case "detr":
            names = model.detr.named_parameters()
            return {id(value): config.sampling_rate for name, value in names if SAMPLING.intersection(name.split("."))}


def _pvanet_shares(model: MaskedDetector, config: TrainConfig) -> dict[int, float]:
    """By a PVANet parameter's id its rate relative to a weight's.

    Biases of convolutions and of the Scale of C.ReLU learn ``bias_rate`` times as fast (``lr_mult`` of the published
    files). AdamW's steps do not grow with the gradient, so what ``edgekit.learning.two_stage.normalised_regressor``
    does to that of the box regressor has to be done to its rate.
    """
    net, shares = model.two_stage, {}
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            shares[id(module.bias)] = config.bias_rate
        elif isinstance(module, ConvCReLU | CReLUConv):
            shares[id(module.scale.bias)] = config.bias_rate
    if config.optimiser == "adamw":
        deviation = math.exp(sum(map(math.log, DEVIATIONS)) / len(DEVIATIONS))
        shares[id(net.head.bbox_pred.weight)] = deviation
        shares[id(net.head.bbox_pred.bias)] = deviation * config.bias_rate
    return shares


def set_learning_rate(
    optimiser: torch.optim.Optimizer, config: TrainConfig, *, step: int, total_steps: int, drops: int
) -> float:
    """Set the rates for ``step`` (from 0) and return the peak group's; ``drops`` counts tenths, but for the cosine."""
    rate = config.learning_rate
    if config.base_batch:
        rate *= math.sqrt(config.batch_size / config.base_batch)
    if step < config.warmup_steps:
        rate *= (step + 1) / config.warmup_steps
    elif config.schedule == "cosine":
        done = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
        rate *= FINAL_RATE + (1 - FINAL_RATE) * (1 + math.cos(math.pi * min(1.0, done))) / 2
    else:
        rate *= PLATEAU_FACTOR**drops
    for group in optimiser.param_groups:
        group["lr"] = rate * group["share"]
    return rate
