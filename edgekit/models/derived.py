"""Checkpoints made from others, or from published files, without training."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

from edgekit.data.voc_xml import VOC_CLASSES
from edgekit.errors import UsageError
from edgekit.models.caffe_weights import load_caffe
from edgekit.models.checkpoint import Checkpoint, load_checkpoint
from edgekit.models.default import default_checkpoint
from edgekit.models.masked_detector import MaskedDetector
from edgekit.models.pvanet_input import read_normalised
from edgekit.models.registry import MODELS, build, find_model, spec_at
from edgekit.spec import DetectorSpec


def open_checkpoint(path: Path, network: str | None) -> Checkpoint:
    """The checkpoint ``path``, or the published network called ``network`` in the ``.caffemodel`` file ``path``.

    Raises:
        CheckpointError: the file cannot be read, or holds another network.
        UsageError: a ``.caffemodel`` without the name of its network, or a name beside a checkpoint, which has its own.
    """
    if path.suffix == ".caffemodel" and network is None:
        raise UsageError(f"{path} does not say which network it holds. Name it with --network, e.g. pvanet-9.1-omg")
    if network is None:
        return load_checkpoint(path)
    if path.suffix == ".pt":
        raise UsageError(f"--network says what a .caffemodel holds, and {path} says itself what it is; leave it out")
    return from_caffe(path, network)


def parse_size(text: str) -> tuple[int, int]:
    """Height and width from ``512`` or ``640x1056``; raises :class:`UsageError` for anything else."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise UsageError(f"--imgsz expects one side, as in 512, or height and width, as in 640x1056, got {text!r}")
    return int(sides[0]), int(sides[-1])


def at_size(checkpoint: Checkpoint, *, height: int, width: int) -> Checkpoint:
    """``checkpoint`` for another input size; its weights, which are shared, do not depend on it.

    Raises:
        UsageError: the model cannot take the size.
    """
    return _rebuilt(checkpoint, spec_at(checkpoint.spec, height=height, width=width), checkpoint.model)


def compressed(checkpoint: Checkpoint) -> Checkpoint:
    """``checkpoint``, a PVANet, with the hidden layers of its head each in two halves (arXiv 1608.08021, section 4).

    Raises:
        UsageError: it has no such head, or has one that is compressed already.
    """
    name = checkpoint.spec.model
    other = name.replace("-omg", "-compressed-omg")
    info = MODELS.get(name)
    if info is None or info.variant is None or info.compressed or other not in MODELS:
        able = [model for model in MODELS if model.replace("-omg", "-compressed-omg") in MODELS]
        raise UsageError(f"the head of {name} cannot be compressed. Those of these models can: {', '.join(able)}")
    model = copy.deepcopy(checkpoint.model)
    model.two_stage.compress()
    return _rebuilt(checkpoint, replace(checkpoint.spec, model=other), model)


def from_caffe(path: Path, name: str, *, classes: tuple[str, ...] = VOC_CLASSES) -> Checkpoint:
    """The published PVANet in a ``.caffemodel`` file, behind the mask network of the shipped detector.

    Args:
        path: a file with its batch norms, such as ``original.model`` of 9.0 or any of 9.1.
        name: which model it is, one of :data:`edgekit.models.registry.MODELS`.
        classes: what it detects, in the order of the file; the published ones know PASCAL VOC's.

    Raises:
        UsageError: ``name`` is no PVANet.
        CheckpointError: the file cannot be read, or holds another network.
    """
    if find_model(name).variant is None:
        raise UsageError(f"{name} was not published as a Caffe file; {path} may be one of: {', '.join(_pvanets())}")
    model = build(name, classes)
    load_caffe(model.two_stage, path)
    read_normalised(model.two_stage)
    shipped = load_checkpoint(default_checkpoint())
    model.omg.load_state_dict(shipped.model.omg.state_dict())
    model.spec = with_masks_of(model.spec, shipped.spec)
    masks = shipped.provenance.get("training_data", "unknown")
    return Checkpoint(
        model=model.eval(),
        provenance={
            "training_data": f"unknown (published weights); {masks} (mask network)",
            "starting_weights": path.name,
        },
    )


def with_masks_of(spec: DetectorSpec, other: DetectorSpec) -> DetectorSpec:
    """``spec`` with the thresholds by which the mask network of ``other`` makes its masks."""
    return replace(
        spec,
        mask_threshold=other.mask_threshold,
        mask_threshold_exponent=other.mask_threshold_exponent,
        mask_dilation=other.mask_dilation,
    )


def _rebuilt(checkpoint: Checkpoint, spec: DetectorSpec, weights: MaskedDetector) -> Checkpoint:
    model = MaskedDetector(spec)
    model.load_state_dict(weights.state_dict())
    return replace(checkpoint, model=model.train(weights.training), state=None)


def _pvanets() -> list[str]:
    return [name for name, info in MODELS.items() if info.variant is not None]
