"""Checkpoints: a model's weights with everything needed to rebuild, export and credit it.

A checkpoint is a ``torch.save`` dictionary of tensors and plain values, read with ``weights_only=True``, so opening
one from a stranger runs no code. Files are written beside their final place and renamed, so a kill leaves the old one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from edgekit.errors import CheckpointError
from edgekit.models.masked_detector import MaskedDetector
from edgekit.models.torch_file import read_torch_file, write_torch_file
from edgekit.spec import DetectorSpec

FORMAT, VERSION = "edgekit-checkpoint", 1

TCL_FORMAT = "edgekit-tcl"
"""What checkpoints of TCL models call themselves (``edgekit.models.tcl.checkpoint``)."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a checkpoint holds."""

    model: MaskedDetector
    """The averaged weights, in evaluation mode, float32."""

    config: dict[str, Any] = field(default_factory=dict)
    """The training run's resolved configuration."""

    metrics: dict[str, Any] = field(default_factory=dict)
    """Its scores when it was saved."""

    provenance: dict[str, str] = field(default_factory=dict)
    """``training_data``, ``starting_weights`` and, if there was one, ``teacher``, for the model card."""

    state: dict[str, Any] | None = None
    """Optimiser, averages and counters to resume from; only ``last.pt`` has it."""

    def without_state(self) -> Checkpoint:
        """The same without what only resuming needs."""
        return replace(self, state=None)

    @property
    def spec(self) -> DetectorSpec:
        """The detector's spec."""
        return self.model.spec


def save_checkpoint(path: Path, checkpoint: Checkpoint, *, half: bool = False) -> None:
    """Write atomically; ``half`` stores weights as float16 (2.0 bytes a parameter, for shipping).

    Raises:
        StorageError: disk full or no permission; what was at ``path`` is untouched.
    """
    weights = checkpoint.model.state_dict()
    if half:
        weights = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    document = {
        "format": FORMAT,
        "version": VERSION,
        "spec": checkpoint.spec.to_json(),
        "config": checkpoint.config,
        "model": weights,
        "metrics": checkpoint.metrics,
        "provenance": checkpoint.provenance,
    }
    if checkpoint.state is not None:
        document["state"] = checkpoint.state
    write_torch_file(path, document)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and rebuild its model on the CPU.

    Raises:
        CheckpointError: missing, truncated, not a checkpoint, of a newer version, or with NaN weights.
    """
    document = read_torch_file(path)
    if isinstance(document, dict) and "online_network_state_dict" in document:
        raise CheckpointError(
            f"{path} is a pretraining of a backbone, not a detector.\n"
            f"Start one from it: edgekit train MODEL --weights {path} --data DIR"
        )
    if isinstance(document, dict) and document.get("format") == TCL_FORMAT:
        raise CheckpointError(
            f"{path} segments by words, it is no detector. These take it: edgekit segment, edgekit val tcl, "
            f'and for a board: edgekit export {path.name} --prompts "person, car"'
        )
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise CheckpointError(f"{path} is a PyTorch file, but not an edgekit checkpoint")
    if document.get("version") != VERSION:
        raise CheckpointError(
            f"{path} is a checkpoint of version {document.get('version')!r}; this edgekit reads version {VERSION}. "
            "Upgrade edgekit."
        )
    try:
        model = MaskedDetector(DetectorSpec.from_json(document["spec"]))
        weights = {
            name: value.float() if value.is_floating_point() else value for name, value in document["model"].items()
        }
        model.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{path} is an incomplete or inconsistent checkpoint: {error}") from error
    require_finite(model, path)
    return Checkpoint(
        model=model.eval(),
        config=document.get("config", {}),
        metrics=document.get("metrics", {}),
        provenance=document.get("provenance", {}),
        state=document.get("state"),
    )


def require_finite(model: MaskedDetector, path: Path) -> None:
    """Raise :class:`CheckpointError` naming the first weight that holds NaN or infinity."""
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            bad = int((~torch.isfinite(value)).sum())
            raise CheckpointError(
                f"{path}: weight {name} holds {bad} NaN or infinite values of {value.numel()}.\n"
                "The training run diverged or the file is damaged; go back to an earlier checkpoint (best.pt), "
                "or train again with a lower --learning-rate."
            )
