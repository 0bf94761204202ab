"""Checkpoints of TCL models: our own, whole and self-contained, and the published ``tcl.pth``, which lacks CLIP."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgekit.errors import CheckpointError, UsageError
from edgekit.models.checkpoint import TCL_FORMAT
from edgekit.models.tcl.clip_weights import load_clip
from edgekit.models.tcl.model import TCL
from edgekit.models.tcl.spec import VARIANTS, TclSpec
from edgekit.models.torch_file import read_torch_file, write_torch_file

FORMAT, VERSION = TCL_FORMAT, 1


@dataclass(frozen=True, kw_only=True)
class TclCheckpoint:
    """What a checkpoint of a TCL model holds."""

    model: TCL
    """In evaluation mode, float32."""

    config: dict[str, Any] = field(default_factory=dict)
    """The training run's resolved configuration."""

    metrics: dict[str, Any] = field(default_factory=dict)
    """Its scores when it was saved."""

    provenance: dict[str, str] = field(default_factory=dict)
    """``training_data`` and ``starting_weights``."""

    state: dict[str, Any] | None = None
    """Optimiser and counters to resume from; only ``last.pt`` has it."""


def save_tcl(path: Path, checkpoint: TclCheckpoint) -> None:
    """Write atomically; raises ``StorageError`` where that cannot be."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "spec": checkpoint.model.spec.to_json(),
        "model": checkpoint.model.state_dict(),
        "config": checkpoint.config,
        "metrics": checkpoint.metrics,
        "provenance": checkpoint.provenance,
    }
    if checkpoint.state is not None:
        document["state"] = checkpoint.state
    write_torch_file(path, document)


def load_tcl(path: Path, *, clip: Path | None = None) -> TclCheckpoint:
    """Read a checkpoint on the CPU.

    Args:
        path: of :func:`save_tcl`, or a published one, whose masker alone is in the file.
        clip: a CLIP ViT-B/16 for a published one, which needs it.

    Raises:
        CheckpointError: missing, truncated, of another program or a newer version, incomplete, or not finite.
        UsageError: a published one without ``clip``, or one of ours with it.
    """
    document = read_torch_file(path)
    if isinstance(document, dict) and document.get("format") == FORMAT:
        if clip is not None:
            raise UsageError(f"{path} holds its own CLIP; leave --clip out")
        return _ours(path, document)
    weights = document.get("model") if isinstance(document, dict) else None
    if isinstance(weights, dict) and "masker.sim2mask.w" in weights:
        return _published(path, weights, clip)
    raise CheckpointError(
        f"{path} is a PyTorch file, but no checkpoint of a TCL model.\nTrain one with: edgekit train tcl"
    )


def _ours(path: Path, document: dict[str, Any]) -> TclCheckpoint:
    if document.get("version") != VERSION:
        raise CheckpointError(
            f"{path} is a TCL checkpoint of version {document.get('version')!r}; this edgekit reads version {VERSION}. "
            "Upgrade edgekit."
        )
    try:
        model = TCL(TclSpec.from_json(document["spec"]))
        model.load_state_dict(document["model"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{path} is an incomplete or inconsistent checkpoint: {error}") from error
    _require_finite(document["model"], path)
    return TclCheckpoint(
        model=model.eval(),
        config=document.get("config", {}),
        metrics=document.get("metrics", {}),
        provenance=document.get("provenance", {}),
        state=document.get("state"),
    )


def _published(path: Path, weights: dict[str, Tensor], clip: Path | None) -> TclCheckpoint:
    if clip is None:
        raise UsageError(
            f"{path} holds the masker alone, as TCL was published.\nGive CLIP's own file, too: --clip ViT-B-16.pt"
        )
    model = TCL(VARIANTS["tcl-vit-b16"])
    load_clip(model, clip)
    wanted = {name for name in model.state_dict() if name.startswith("masker.")}
    got = {name for name in weights if name.startswith("masker.")}
    if wanted != got:
        raise CheckpointError(
            f"{path} does not fit the published masker: {len(wanted - got)} weights are missing, "
            f"{len(got - wanted)} unknown, e.g. {min(wanted ^ got)}"
        )
    masker = {name: weights[name].float() for name in got}
    try:
        model.load_state_dict(masker, strict=False)
    except RuntimeError as error:
        first = str(error).split("\n\t")[1]
        raise CheckpointError(f"{path} does not fit the published masker: {first}") from error
    _require_finite(masker, path)
    provenance = {"training_data": "CC3M, CC12M (arXiv 2212.00785)", "starting_weights": clip.name}
    return TclCheckpoint(model=model.eval(), provenance=provenance)


def _require_finite(weights: dict[str, Tensor], path: Path) -> None:
    for name, value in weights.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(
                f"{path}: weight {name} holds NaN or infinity.\n"
                "The training run diverged or the file is damaged; train again with a lower --learning-rate"
            )
