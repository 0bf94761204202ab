"""Every network divided into stages, and what each of them costs: where ``facts.toml`` comes from. Needs PyTorch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import nn

from edgekit.metrics.macs import layer_calls
from edgekit.models.facts import ModelFacts, model_facts
from edgekit.models.masked_detector import MaskedDetector
from edgekit.models.mobilenetv2 import BLOCKS
from edgekit.models.pvanet import PVANet, PVANetClassifier
from edgekit.models.pvanet_rois import POOLED
from edgekit.models.registry import NETWORKS, NetworkInfo


@dataclass(frozen=True, kw_only=True)
class Run:
    """A part of a network that is called by itself."""

    part: nn.Module
    shape: tuple[int, ...]
    """Of what it reads, for one picture or one RoI."""

    times: int = 1
    """How often one picture calls it."""


@dataclass(frozen=True, kw_only=True)
class Division:
    """How a network is counted."""

    runs: tuple[Run, ...]
    """All that happens to one picture."""

    stages: dict[str, list[nn.Module]]
    """In the order of the data; every parameter belongs to exactly one."""


def count_facts(name: str) -> ModelFacts:
    """Build the network called ``name`` without memory for its weights, and count."""
    info = NETWORKS[name]
    weights: dict[nn.Module, int] = {}
    macs: Counter[nn.Module] = Counter()
    with torch.device("meta"):  # shapes only: nothing is computed
        division = divide(info.build(), info)
        for run in division.runs:
            for call in layer_calls(run.part, torch.empty(run.shape)):
                weights[call.layer] = call.layer.weight.numel()
                macs[call.layer] += call.macs * run.times
    stages = []
    for stage, modules in division.stages.items():
        parts = [part for module in modules for part in module.modules()]
        stages.append(
            {
                "name": stage,
                "weights": sum(weights.get(part, 0) for part in parts),
                "parameters": sum(item.numel() for module in modules for item in module.parameters()),
                "macs": sum(macs[part] for part in parts),
            }
        )
    size = {"height": info.height, "width": info.width, "classes": info.classes, "rois": info.rois}
    return model_facts(name, {**size, "stages": stages})


def divide(network: nn.Module, info: NetworkInfo) -> Division:
    """Divide ``network``, which ``info.build`` made.

    Raises:
        TypeError: nothing here says how such a network is divided.
    """
    picture = (1, 3, info.height, info.width)
    if isinstance(network, MaskedDetector):
        return Division(
            runs=(Run(part=network.omg, shape=picture), Run(part=network.detector, shape=picture)),
            stages=_masked_detector(network),
        )
    if isinstance(network, PVANet):
        return Division(
            runs=(
                Run(part=network, shape=picture),  # trunk, hyper feature and proposals
                Run(part=network.head, shape=(1, network.head.channels, POOLED, POOLED), times=info.rois),
            ),
            stages={**_trunk(network.trunk), **_hyper(network.hyper), "rpn": [network.rpn], "head": [network.head]},
        )
    if isinstance(network, PVANetClassifier):
        layers = {name: [network.get_submodule(name)] for name in ("fc6", "fc7", "fc8")}
        return Division(runs=(Run(part=network, shape=picture),), stages={**_trunk(network.trunk), **layers})
    raise TypeError(f"edgekit.models.stages does not say how a {type(network).__name__} is divided")


def _masked_detector(model: MaskedDetector) -> dict[str, list[nn.Module]]:
    """Stages by the resolution that a block puts out; the block that halves it belongs to the coarser stage."""
    backbone = model.detector.backbone
    stages: dict[str, list[nn.Module]] = {"omg": [model.omg], "stem": [backbone.stem]}
    stride = 2
    for shape, block in zip(BLOCKS, backbone.blocks, strict=True):
        stride *= shape.stride
        stages.setdefault(f"stride {stride}", []).append(block)
    stages[f"stride {stride}"].append(backbone.last)
    stages["extras"] = [model.detector.extras]
    stages["class heads"] = [model.detector.class_heads]
    stages["box heads"] = [model.detector.box_heads]
    return stages


def _trunk(trunk: nn.Module) -> dict[str, list[nn.Module]]:
    """The rows of table 1 in arXiv 1608.08021, or of PVANet-lite's file: one a block, under the published names."""
    return {name: [block] for name, block in trunk.named_children()}


def _hyper(hyper: nn.Module) -> dict[str, list[nn.Module]]:
    """The deconvolution, and ``convf``: the convolutions of the concatenated maps."""
    parts = dict(hyper.named_children())
    return {"upsample": [parts.pop("upsample")], "convf": list(parts.values())}
