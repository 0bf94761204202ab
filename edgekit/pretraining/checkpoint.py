"""Checkpoints of a pretraining run, in the layout of SCRL's published ones.

======================================== =============================================================================
``online_network_state_dict``            ``encoder.*`` (ResNet-50 as a sequence, like torchvision's) and ``projector.*``
``target_network_state_dict``            the same of the target
``predictor_state_dict``                 ``net.*``
``evaluator_state_dict``                 the linear probe's; empty without one
``epoch``, ``max_eval_score``            finished epochs, and the best accuracy of the probe
``optimizer_``, ``scheduler_``,          only in ``last.pt``, to resume from
``scaler_state_dict``, ``state``
``format``, ``version``, ``config``,     edgekit's own
``classes``, ``metrics``, ``provenance``
======================================== =============================================================================

So whatever reads the published files reads these, as ``edgekit train --weights`` does. They are read with
``weights_only=True``; files are written beside their final place and renamed, so a kill leaves the old one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.errors import CheckpointError
from edgekit.models.torch_file import read_torch_file
from edgekit.pretraining.backbones import find_backbone
from edgekit.pretraining.networks import Branch, Learner

FORMAT, VERSION = "edgekit-pretraining", 1
ONLINE, TARGET, PREDICTOR, PROBE = (
    f"{part}_state_dict" for part in ("online_network", "target_network", "predictor", "evaluator")
)
NAMED = 4
"""So many names of layers in a message are enough to see what is wrong."""


def weights_of(learner: Learner) -> dict[str, dict[str, Tensor]]:
    """All networks under the published names."""
    return {
        ONLINE: _published(learner.online, learner.backbone),
        TARGET: _published(learner.target, learner.backbone),
        PREDICTOR: learner.predictor.state_dict(),
        PROBE: learner.probe.state_dict() if learner.probe is not None else {},
    }


def _published(branch: Branch, backbone: str) -> dict[str, Tensor]:
    trunk = find_backbone(backbone).published(branch.encoder.state_dict())
    weights = {f"encoder.{name}": value for name, value in trunk.items()}
    return weights | {f"projector.{name}": value for name, value in branch.projector.state_dict().items()}


def encoder_weights(document: dict[str, Any], backbone: str, path: Path) -> dict[str, Tensor]:
    """The online network's trunk, under its module's own names.

    Raises:
        CheckpointError: the document has no such network.
    """
    online = document.get(ONLINE)
    if not isinstance(online, dict) or not all(isinstance(value, Tensor) for value in online.values()):
        raise CheckpointError(f"{path} is a PyTorch file, but has no {ONLINE!r} as a pretraining of SCRL or BYOL has")
    prefix = "encoder."
    return find_backbone(backbone).own(
        {str(name).removeprefix(prefix): value for name, value in online.items() if str(name).startswith(prefix)}
    )


def load_networks(learner: Learner, document: Any, path: Path) -> None:
    """Fill a learner from a checkpoint, the published ones too: the online network, and of the others what is there.

    A target that is not there becomes the online network's double. A probe of other classes stays as it is.

    Raises:
        CheckpointError: it is of other networks, or holds NaN.
    """
    if not isinstance(document, dict):
        raise CheckpointError(f"{path} is a PyTorch file, but no pretraining: it holds a {type(document).__name__}")
    made_with = document.get("config")
    other = made_with.get("backbone") if isinstance(made_with, dict) else None
    if other is not None and other != learner.backbone:
        raise CheckpointError(f"{path} is a pretraining of {other}, not of {learner.backbone}")
    online = document.get(ONLINE)
    for branch, weights in ((learner.online, online), (learner.target, document.get(TARGET) or online)):
        _load(branch.encoder, encoder_weights({ONLINE: weights}, learner.backbone, path), path, "encoder")
        assert isinstance(weights, dict)
        prefix = "projector."
        projector = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        if projector:
            _load(branch.projector, projector, path, "projector")
    if document.get(PREDICTOR):
        _load(learner.predictor, document[PREDICTOR], path, "predictor")
    probe = document.get(PROBE)
    if learner.probe is not None and probe and probe.get("weight", torch.empty(0)).shape == learner.probe.weight.shape:
        _load(learner.probe, probe, path, "evaluator")


def _load(network: nn.Module, weights: dict[str, Tensor], path: Path, part: str) -> None:
    """Load what must be all of the network's weights and no others."""
    own = network.state_dict()
    counts = ".num_batches_tracked"
    faults = [name for name in own if name not in weights and not name.endswith(counts)]
    faults += [name for name in weights if name not in own and not name.endswith(counts)]
    faults += [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if faults:
        raise CheckpointError(
            f"the {part} in {path} is of another shape: {len(faults)} of {len(own)} weights do not fit, e.g. "
            f"{', '.join(faults[:NAMED])}.\nLikely cause: another backbone, --width-multiplier, head_hidden or "
            "head_outputs; the file's config says which."
        )
    bad = [name for name, value in weights.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise CheckpointError(f"the {part} in {path} holds NaN or infinite values in {', '.join(bad[:NAMED])}")
    network.load_state_dict(weights, strict=False)


def read_run(path: Path) -> dict[str, Any]:
    """The document of a ``last.pt``.

    Raises:
        CheckpointError: it is none, or of a newer version.
    """
    document = read_torch_file(path)
    if not is_pretraining(document):
        raise CheckpointError(f"{path} is a PyTorch file, but not a pretraining of edgekit; start one without --resume")
    if document.get("version") != VERSION:
        raise CheckpointError(
            f"{path} is a pretraining of version {document.get('version')!r}; this edgekit reads version {VERSION}. "
            "Upgrade edgekit."
        )
    if "state" not in document:
        raise CheckpointError(f"{path} holds no training state; start a new run from it with --weights {path}")
    return dict(document)


def is_pretraining(document: Any) -> bool:
    """Whether a file's content is a pretraining of edgekit's."""
    return isinstance(document, dict) and document.get("format") == FORMAT
