"""A detector's trunk from a pretraining without labels (``edgekit pretrain``).

A pretrained MobileNetV2 starts the mask network too, whose layers have the shapes of some of its blocks, as ImageNet's
does (``edgekit.models.starting_weights``): nothing in such a detector has seen a label. Batch norms are measured anew
on plain pictures of the training set, since pretraining saw smaller crops of changed colours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.errors import CheckpointError, UsageError
from edgekit.models.backbone import EVERYWHERE
from edgekit.models.masked_detector import MaskedDetector
from edgekit.models.mobilenetv2 import MobileNetV2
from edgekit.models.mobilenetv2_pyramid import MobileNetV2Pyramid
from edgekit.models.omg import STRIDE_8, STRIDE_16, STRIDE_32
from edgekit.models.registry import MODELS
from edgekit.models.torch_file import read_torch_file
from edgekit.pretraining.checkpoint import encoder_weights, is_pretraining

SUFFIXES = (".pt", ".pth")
RESNET = "resnet50"
"""Its files have the published layout and are read like those."""


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """What a pretraining leaves for a detector."""

    path: Path
    backbone: str
    width: float
    encoder: dict[str, Tensor]
    """By the trunk's own names."""

    note: str
    """How it was trained, for the model card."""


def read_pretraining(path: Path) -> Pretraining | None:
    """The pretraining in a file of ``edgekit pretrain``; ``None`` for any other file.

    Raises:
        CheckpointError: it cannot be read, or holds no trunk or NaN.
    """
    if path.suffix not in SUFFIXES or not path.is_file():
        return None  # what is missing is said by what goes on to read it
    document = read_torch_file(path)
    if not is_pretraining(document):
        return None
    try:
        config: dict[str, Any] = document["config"]
        backbone, width = str(config["backbone"]), float(config["width_multiplier"])
        data = document["provenance"]["training_data"]
        note = f" ({str(config['method']).upper()} without labels on {data}, {document['epoch']} epochs)"
        encoder = encoder_weights(document, backbone, path)
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise CheckpointError(f"{path} is an incomplete or inconsistent pretraining: {error}") from error
    bad = [name for name, value in encoder.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise CheckpointError(f"{path}: NaN or infinite values in {bad[0]}; the pretraining diverged")
    return Pretraining(path=path, backbone=backbone, width=width, encoder=encoder, note=note)


def pretraining_note(path: Path) -> str:
    """How the pretraining at ``path`` was made, in parentheses behind a space; empty for other files."""
    pretraining = read_pretraining(path)
    return pretraining.note if pretraining is not None else ""


def fill_trunk(
    model: MaskedDetector, pretraining: Pretraining, *, pictures: Callable[[], list[Tensor]]
) -> tuple[set[str], bool]:
    """Fill the trunk of ``model``, which is no ResNet, and if it can be the mask network.

    Args:
        model: freshly initialised.
        pretraining: of the same trunk.
        pictures: normalised batches [B, 3, H, W] to measure batch norms on.

    Returns:
        The names of the trunk's tensors in the model's state dict, and whether the mask network was filled.

    Raises:
        UsageError: it is of another backbone or width.
        CheckpointError: it lacks layers of the trunk.
    """
    wanted, width = trunk_of(model), model.spec.width_multiplier
    if pretraining.backbone != wanted or pretraining.width != width:
        made = f"{pretraining.backbone} (width {pretraining.width:g})"
        option = f" --width-multiplier {width:g}" if width != 1 else ""
        raise UsageError(
            f"{pretraining.path} is a pretraining of {made}; {model.spec.model} stands on {wanted} (width {width:g}).\n"
            f"Pretrain that one: edgekit pretrain {wanted}{option} --data FOLDER -o OUTPUT"
        )
    trunk = model.trunk
    own = trunk.state_dict()
    lacking = [
        name for name, value in own.items() if name not in pretraining.encoder
        or pretraining.encoder[name].shape != value.shape
    ]  # fmt: skip
    if lacking:
        raise CheckpointError(f"{pretraining.path} lacks {len(lacking)} layers of the trunk, e.g. {lacking[0]}")
    trunk.load_state_dict({name: pretraining.encoder[name] for name in own})
    batches = pictures()
    measure_norms(trunk, lambda batch: trunk(batch, EVERYWHERE), batches)
    prefix = next(name for name, module in model.named_modules() if module is trunk)
    with_masks = isinstance(trunk, MobileNetV2 | MobileNetV2Pyramid)
    if isinstance(trunk, MobileNetV2 | MobileNetV2Pyramid):
        model.omg.stem.load_state_dict(trunk.stem.state_dict())
        stages = (model.omg.stride_8, STRIDE_8), (model.omg.stride_16, STRIDE_16), (model.omg.stride_32, STRIDE_32)
        for stage, indices in stages:
            for block, index in zip(stage, indices, strict=True):
                block.load_state_dict(trunk.blocks[index].state_dict())
        measure_norms(model.omg, model.omg, batches)
    return {f"{prefix}.{name}" for name in own}, with_masks


def trunk_of(model: MaskedDetector) -> str:
    """The name under which ``edgekit pretrain`` knows the trunk of ``model``."""
    if isinstance(model.trunk, MobileNetV2 | MobileNetV2Pyramid):
        return "mobilenetv2"
    variant = MODELS[model.spec.model].variant
    return f"pvanet-{variant}" if variant is not None else RESNET


@torch.no_grad()
def measure_norms(network: nn.Module, forward: Callable[[Tensor], object], batches: Iterable[Tensor]) -> None:
    """Set the running statistics of all batch norms of ``network`` to the means over ``batches`` [B, 3, H, W].

    Unlike for ImageNet's folded norms, scale and shift stay: they were learnt beside statistics of the batch.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [(norm.momentum, norm.training) for norm in norms]
    for index, batch in enumerate(batches):
        for norm in norms:
            # A running mean with equal shares. (PyTorch's own, momentum None, is not for fused norms.)
            norm.momentum = 1 / (index + 1)
            norm.train()
        forward(batch)
    for norm, (momentum, training) in zip(norms, before, strict=True):
        norm.momentum = momentum
        norm.train(training)
