"""Every network divided into stages, and what each of them costs: where ``facts.toml`` comes from. Needs PyTorch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from edgekit.metrics.flops import count_flops
from edgekit.metrics.macs import layer_calls, weights_of
from edgekit.models.facts import ModelFacts, model_facts
from edgekit.models.masked_detector import MaskedDetector
from edgekit.models.masked_detr import DetrGraph
from edgekit.models.mobilenetv2 import BLOCKS
from edgekit.models.mobilenetv2_ssdlite import MobileNetV2SSDLite
from edgekit.models.pvanet import PVANet, PVANetClassifier
from edgekit.models.pvanet_rois import POOLED
from edgekit.models.registry import NETWORKS, NetworkInfo
from edgekit.models.sparse_detr import SparseDetr


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

    transformer: bool = False
    """Counted by the rules of ``edgekit.metrics.flops``, as its publications do."""


def count_facts(name: str) -> ModelFacts:
    """Build the network called ``name`` without memory for its weights, and count."""
    info = NETWORKS[name]
    weights: dict[nn.Module, int] = {}
    macs: Counter[nn.Module] = Counter()
    with torch.device("meta"):  # shapes only: nothing is computed
        division = divide(info.build(), info)
        for run in division.runs:
            if division.transformer:
                call = partial(run.part.eval(), torch.empty(run.shape), all_heads=True)
                macs += count_flops(run.part, call)
                weights |= _transformer_weights(run.part)
                continue
            for layer in layer_calls(run.part, torch.empty(run.shape)):
                weights[layer.layer] = weights_of(layer.layer)
                macs[layer.layer] += layer.macs * run.times
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
        detector = network.detector
        if isinstance(detector, SparseDetr):  # by the same rules as others behind a mask
            graph = DetrGraph(detector, network.spec)
            inner = Division(runs=(Run(part=graph, shape=picture),), stages=_detr(detector))
        else:
            inner = divide(detector, info) if isinstance(detector, PVANet) else _ssdlite(detector, picture)
        return Division(
            runs=(Run(part=network.omg, shape=picture), *inner.runs), stages={"omg": [network.omg], **inner.stages}
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
    if isinstance(network, SparseDetr):
        return Division(runs=(Run(part=network, shape=picture),), stages=_detr(network), transformer=True)
    raise TypeError(f"edgekit.models.stages does not say how a {type(network).__name__} is divided")


def _transformer_weights(network: nn.Module) -> dict[nn.Module, int]:
    """Of the convolutions and linear layers; an attention keeps three of the latter as one."""
    weights: dict[nn.Module, int] = {}
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            weights[part] = part.weight.numel()
        elif isinstance(part, nn.MultiheadAttention):
            weights[part] = part.in_proj_weight.numel()
    return weights


def _detr(network: SparseDetr) -> dict[str, list[nn.Module]]:
    """In the order of the data; heads that only training asks are apart."""
    transformer, asked = network.transformer, network.size.decoder_layers + network.two_stage
    level_embed = nn.ParameterList([transformer.level_embed])
    stages: dict[str, list[nn.Module]] = {
        "backbone": [network.backbone[0]],
        "levels": [network.input_proj, level_embed],
    }
    if network.share is not None:
        stages["scoring"] = [transformer.enc_mask_predictor]
    stages["encoder"] = [transformer.encoder.layers]
    if network.two_stage:
        stages["encoder heads"] = [network.class_embed[asked:], network.bbox_embed[asked:]]
        names = ("enc_output", "enc_output_norm", "pos_trans", "pos_trans_norm")
        stages["proposals"] = [transformer.get_submodule(name) for name in names]
    else:
        stages["queries"] = [network.query_embed, transformer.reference_points]
    stages["decoder"] = [transformer.decoder.layers]
    stages["heads"] = [network.class_embed[:asked], network.bbox_embed[:asked]]
    return {name: parts for name, parts in stages.items() if any(list(part.parameters()) for part in parts)}


def _ssdlite(detector: MobileNetV2SSDLite, picture: tuple[int, ...]) -> Division:
    """Stages by the resolution that a block puts out; the block that halves it belongs to the coarser stage."""
    backbone = detector.backbone
    stages: dict[str, list[nn.Module]] = {"stem": [backbone.stem]}
    stride = 2
    for shape, block in zip(BLOCKS, backbone.blocks, strict=True):
        stride *= shape.stride
        stages.setdefault(f"stride {stride}", []).append(block)
    stages[f"stride {stride}"].append(backbone.last)
    stages["extras"] = [detector.extras]
    stages["class heads"] = [detector.class_heads]
    stages["box heads"] = [detector.box_heads]
    return Division(runs=(Run(part=detector, shape=picture),), stages=stages)


def _trunk(trunk: nn.Module) -> dict[str, list[nn.Module]]:
    """The rows of table 1 in arXiv 1608.08021, or of PVANet-lite's file: one a block, under the published names."""
    return {name: [block] for name, block in trunk.named_children()}


def _hyper(hyper: nn.Module) -> dict[str, list[nn.Module]]:
    """The deconvolution, and ``convf``: the convolutions of the concatenated maps."""
    parts = dict(hyper.named_children())
    return {"upsample": [parts.pop("upsample")], "convf": list(parts.values())}
