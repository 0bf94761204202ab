"""Published weights for the backbones of a detection transformer: files that the user brings.

A file fits exactly or is refused: of the names that its kind of file is known to hold, those that a backbone has no use
for are left out, and every other name must be one of the backbone's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.errors import CheckpointError
from edgekit.models.resnet import ResNet
from edgekit.models.swin import SwinTransformer
from edgekit.models.torch_file import read_torch_file

SCRL_LAYERS = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
"""SCRL's ``encoder`` is torchvision's ResNet as a sequence; 2, 3 and 8 are ReLU and pooling, without weights."""

NAMED = 6
"""So many names of layers in a message are enough to see what is wrong."""


def load_torchvision_resnet(network: ResNet, path: Path) -> None:
    """Load the state dict of a torchvision ResNet with bottlenecks, all but its classifier ``fc``.

    Raises:
        CheckpointError: unreadable, NaN, or names or shapes that are not the network's; those are named.
    """
    weights = _tensors(read_torch_file(path), path, "a torchvision ResNet's state dict")
    _load(network, {name: value for name, value in weights.items() if not name.startswith("fc.")}, path)


def load_scrl_resnet(network: ResNet, path: Path) -> None:
    """Load a ResNet that SCRL (arXiv 2103.06122) pretrained: the online network's encoder, not its projector.

    Raises:
        CheckpointError: as of :func:`load_torchvision_resnet`.
    """
    expected = "an SCRL checkpoint with 'online_network_state_dict'"
    weights = _tensors(_part(read_torch_file(path), "online_network_state_dict", path, expected), path, expected)
    kept = {_of_scrl(name): value for name, value in weights.items() if not name.startswith("projector.")}
    _load(network, kept, path)


def _of_scrl(name: str) -> str:
    """``encoder.4.0.conv1.weight`` -> ``layer1.0.conv1.weight``; a name that is no such one stays, to be refused."""
    encoder, _, rest = name.partition(".")
    index, _, tail = rest.partition(".")
    return f"{SCRL_LAYERS[index]}.{tail}" if encoder == "encoder" and index in SCRL_LAYERS else name


def load_swin(network: SwinTransformer, path: Path) -> None:
    """Load a published Swin (a dictionary with ``model``), all but its classifier ``head`` and the ``norm`` before it.

    A classifier has no LayerNorm for each map: unless the file has ``norm1`` to ``norm3``, they stay as they are.
    ``relative_position_index`` and ``attn_mask`` follow from sizes, and are not read.

    Raises:
        CheckpointError: as of :func:`load_torchvision_resnet`.
    """
    expected = "a Swin checkpoint with 'model'"
    weights = _tensors(_part(read_torch_file(path), "model", path, expected), path, expected)
    derived = (".relative_position_index", ".attn_mask")
    own = network.state_dict()
    kept = {
        name: own[name] for name in own if name.startswith(("norm1.", "norm2.", "norm3.")) or name.endswith(derived)
    }
    for name, value in weights.items():
        if not name.startswith(("head.", "norm.")) and not name.endswith(derived):
            kept[name] = value
    _load(network, kept, path)


def _part(document: Any, key: str, path: Path, expected: str) -> Any:
    if not isinstance(document, dict) or key not in document:
        raise CheckpointError(f"{path} is a PyTorch file, but not {expected}")
    return document[key]


def _tensors(document: Any, path: Path, expected: str) -> dict[str, Tensor]:
    """The document, if it is names and tensors."""
    if not isinstance(document, dict):
        raise CheckpointError(f"{path} is a PyTorch file, but not {expected}")
    others = [str(name) for name, value in document.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(f"{path} is a PyTorch file, but not {expected}: no tensors are {_some(others)}")
    return {str(name): value for name, value in document.items()}


def _load(network: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Load what must be all of the network's weights and no others, or nothing."""
    own = network.state_dict()
    counts = ".num_batches_tracked"  # a frozen batch norm has none, and an old file neither; no output depends on it
    shapes = [
        f"{name} {list(weights[name].shape)}, not {list(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    faults = {
        "lacks": [name for name in own if name not in weights and not name.endswith(counts)],
        "has unknown": [name for name in weights if name not in own and not name.endswith(counts)],
        "has other shapes:": shapes,
        "holds NaN or infinite values in": [name for name in weights if not bool(torch.isfinite(weights[name]).all())],
    }
    found = [f"it {fault} {_some(names)}" for fault, names in faults.items() if names]
    if found:
        raise CheckpointError(
            f"the weights in {path} are not those of this {type(network).__name__}:\n" + "\n".join(found)
        )
    network.load_state_dict(weights, strict=False)


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + rest
