"""Starting weights: which file ``--weights`` means, and what of a model it fills."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgekit.errors import CheckpointError, UsageError
from edgekit.learning import distributed
from edgekit.learning.optimiser import HEAD, OMG, TRUNK
from edgekit.learning.pretrained import RESNET, fill_trunk, read_pretraining
from edgekit.models.backbone_weights import load_scrl_resnet, load_torchvision_resnet
from edgekit.models.caffe_weights import CaffeLayer, load_caffe, read_caffemodel
from edgekit.models.checkpoint import Checkpoint, load_checkpoint
from edgekit.models.default import default_checkpoint
from edgekit.models.masked_detector import MaskedDetector
from edgekit.models.mobilenetv2_ssdlite import MobileNetV2SSDLite
from edgekit.models.pvanet import COARSEST, PVANet, PVANetClassifier
from edgekit.models.pvanet_input import read_normalised
from edgekit.models.registry import MODELS
from edgekit.models.resnet import ResNet
from edgekit.models.sparse_detr import SparseDetr
from edgekit.models.starting_weights import read_tflite_convolutions, start_from_mobilenetv2
from edgekit.models.torch_file import read_torch_file

log = logging.getLogger("edgekit")

PLACES = {
    OMG: ("omg.",),
    TRUNK: ("detector.backbone.", "detector.trunk."),
    HEAD: ("detector.head.fc6", "detector.head.fc7"),
}
"""Where the tensors of a part are; it has started from weights if all of them have."""

BODY = "backbone.0.body."
"""Where a DETR's backbone is in it."""


def starting_weights(text: str) -> Path | None:
    """The file that ``--weights TEXT`` means; ``None`` for random weights.

    Raises:
        UsageError: there is no such file.
    """
    if text == "none":
        return None
    path = default_checkpoint() if text == "default" else Path(text)
    if not path.is_file():
        raise UsageError(
            f"--weights {text}: {path} does not exist.\n"
            "Give a MobileNetV2 .tflite, a published PVANet .caffemodel, a published Sparse DETR or ResNet-50 .pth, "
            "pretrained.pth of edgekit pretrain, a checkpoint .pt, 'default' (the shipped detector, of which other "
            "models take the mask network, and those on MobileNetV2 the trunk too) or 'none' (random weights)."
        )
    return path


def fill(
    model: MaskedDetector, path: Path | None, *, pictures: Callable[[], list[Tensor]]
) -> tuple[frozenset[str], Checkpoint | None]:
    """Fill ``model`` from the file at ``path`` as far as it fits.

    A checkpoint of a PVANet with a whole head is compressed on its way into a model whose head is in two halves.
    A published detector comes without a mask network; that of the shipped detector takes its place. A DETR on
    MobileNetV2 takes the trunk of a MobileNetV2-SSDLite. A pretraining without labels fills the trunk, and where that
    is a MobileNetV2 the mask network too.

    Args:
        model: freshly initialised.
        path: of a file; ``None`` leaves the model as it is.
        pictures: normalised batches [B, 3, H, W] to measure batch norms on, if the file has none.

    Returns:
        The parts that have started from weights (``edgekit.learning.optimiser``), and the checkpoint that the mask
        network comes from, if one was read.

    Raises:
        CheckpointError: the file is damaged, or shares no layer with the model.
        UsageError: it is of a kind that this model cannot start from.
    """
    source, fitted = None, set[str]()
    pretraining = read_pretraining(path) if path is not None else None
    if path is None:
        pass
    elif pretraining is not None and pretraining.backbone != RESNET:
        fitted, with_masks = fill_trunk(model, pretraining, pictures=pictures)
        if with_masks:
            return frozenset({OMG, TRUNK}), None
        source = _shipped_masks(model)
        fitted |= {name for name in model.state_dict() if name.startswith(PLACES[OMG])}
    elif path.suffix == ".pt" and pretraining is None:
        source = load_checkpoint(path)
        if isinstance(source.model.detector, PVANet) and isinstance(model.detector, PVANet):
            _compress_alike(source.model.detector, model.detector)
        fitted = _load_fitting(model, _weights_for(model, source.model), where=path)
    elif path.suffix in (".caffemodel", ".pth") or pretraining is not None:
        fitted = _load_published(model, path) if path.suffix == ".caffemodel" else _load_published_detr(model, path)
        source = _shipped_masks(model)
        fitted |= {name for name in model.state_dict() if name.startswith(PLACES[OMG])}
    elif model.spec.kind != "one_stage":
        published = ".caffemodel" if model.spec.kind == "two_stage" else ".pth"
        raise UsageError(f"{model.spec.model} starts from a published {published} or a checkpoint .pt, not from {path}")
    else:
        start_from_mobilenetv2(model.one_stage.backbone, model.omg, read_tflite_convolutions(path), pictures())
        return frozenset({OMG, TRUNK}), None
    own = model.state_dict().keys()
    started = {
        part
        for part, places in PLACES.items()
        if any(name.startswith(places) for name in own)
        and all(name in fitted for name in own if name.startswith(places))
    }
    if TRUNK not in started and distributed.rank() == 0:
        log.warning("the detector starts from random weights, which needs far more data and time than --weights")
    return frozenset(started), source


def _shipped_masks(model: MaskedDetector) -> Checkpoint:
    """Give ``model`` the mask network of the shipped detector, which is returned."""
    source = load_checkpoint(default_checkpoint())
    masks = {name: value for name, value in source.model.state_dict().items() if name.startswith(PLACES[OMG])}
    model.load_state_dict({**model.state_dict(), **masks})
    return source


def _weights_for(model: MaskedDetector, source: MaskedDetector) -> dict[str, Tensor]:
    """The weights of ``source`` by the names of ``model``."""
    weights = source.state_dict()
    if isinstance(model.detector, SparseDetr) and isinstance(source.detector, MobileNetV2SSDLite):
        trunk, place = "detector.backbone.", f"detector.{BODY}"
        return {name.replace(trunk, place) if name.startswith(trunk) else name: weights[name] for name in weights}
    return weights


def _load_published_detr(model: MaskedDetector, path: Path) -> set[str]:
    """Fill a DETR on ResNet-50 from a Sparse DETR, or its backbone from SCRL's or torchvision's ResNet-50."""
    body = model.detr.body if model.spec.kind == "detr" else None
    if not isinstance(body, ResNet):
        raise UsageError(f"a .pth such as {path} is for sparse-detr-r50-omg; {model.spec.model} starts from others")
    document = read_torch_file(path)
    keys = document.keys() if isinstance(document, dict) else ()
    if "model" in keys and isinstance(document["model"], dict):
        weights = {f"detector.{name}": value for name, value in document["model"].items()}
        return _load_fitting(model, weights, where=path)
    load = load_scrl_resnet if "online_network_state_dict" in keys else load_torchvision_resnet
    load(body, path)
    return {f"detector.{BODY}{name}" for name in body.state_dict()}


def _compress_alike(source: PVANet, target: PVANet) -> None:
    """Compress the head of ``source`` if that of ``target`` is in two halves and its own is not."""
    if source.head.shape.fc6.rank is None and target.head.shape.fc6.rank is not None:
        source.compress()


def _load_fitting(model: MaskedDetector, source: dict[str, Tensor], *, where: Path) -> set[str]:
    """Copy each tensor of ``source``, the file at ``where``, that has a place of its name and shape; their names."""
    own: dict[str, Any] = model.state_dict()
    fitting = {name: value for name, value in source.items() if name in own and own[name].shape == value.shape}
    if not fitting:
        raise CheckpointError(f"{where} shares no layer with {model.spec.model}; is it a checkpoint of another model?")
    skipped = sorted(own.keys() - fitting.keys())
    if skipped and distributed.rank() == 0:
        log.warning("%d of %d tensors start afresh (other shape or name), e.g. %s", len(skipped), len(own), skipped[0])
    model.load_state_dict({**own, **fitting})
    return set(fitting)


def _load_published(model: MaskedDetector, path: Path) -> set[str]:
    """Fill a PVANet from a Caffe file of a detector or of the ImageNet classifier; the names of what it filled."""
    variant = MODELS[model.spec.model].variant
    if variant is None:
        raise UsageError(f"{path} has weights of a PVANet, and {model.spec.model} is none")
    if model.spec.width_multiplier != 1:
        raise UsageError(
            f"published weights such as {path} are of full width; leave out --width-multiplier, or start from your own"
        )
    layers = {layer.name: layer for layer in read_caffemodel(path)}
    if "fc8" in layers:
        trunk = _published_trunk(variant, layers, path)
        model.two_stage.trunk.load_state_dict(trunk)
        read_normalised(model.two_stage)
        return {f"detector.trunk.{name}" for name in trunk}
    source = PVANet(
        variant,
        classes=_rows(layers, "cls_score", default=len(model.spec.classes) + 1) - 1,
        compressed="fc6_L" in layers,
    )
    load_caffe(source, path)
    read_normalised(source)
    _compress_alike(source, model.two_stage)
    return _load_fitting(model, {f"detector.{name}": value for name, value in source.state_dict().items()}, where=path)


def _published_trunk(variant: str, layers: dict[str, CaffeLayer], path: Path) -> dict[str, Tensor]:
    if variant == "lite":
        raise UsageError(f"{path} is an ImageNet classifier, and none was published for pvanet-lite")
    with torch.device("meta"):
        channels = PVANetClassifier(variant).trunk.channels[-1]
    inputs = layers["fc6"].blobs[0].shape[-1] if "fc6" in layers else 0
    side = round((inputs / channels) ** 0.5) * COARSEST
    classifier = PVANetClassifier(variant, side=side or COARSEST, classes=_rows(layers, "fc8", default=1000))
    load_caffe(classifier, path)
    return classifier.trunk.state_dict()


def _rows(layers: dict[str, CaffeLayer], name: str, *, default: int) -> int:
    """Outputs of a fully connected layer of the file, or ``default``: what fits is checked when it is loaded."""
    if name not in layers:
        return default
    shape = layers[name].blobs[0].shape
    return max(2, int(shape[-2])) if len(shape) >= 2 else default
