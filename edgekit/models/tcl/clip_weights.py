"""CLIP checkpoints of OpenAI (a TorchScript archive) and open_clip (a state_dict), by the names of their weights.

Every weight has to be there in its shape, and nothing else may be: half a CLIP would segment, badly.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from edgekit.errors import CheckpointError
from edgekit.models.tcl.clip import ClipImageEncoder
from edgekit.models.tcl.model import TCL
from edgekit.models.torch_file import read_torch_file

NOT_WEIGHTS = frozenset({"input_resolution", "context_length", "vocab_size", "logit_scale", "logit_bias", "attn_mask"})
"""Entries of a CLIP checkpoint that TCL has no use for: sizes, and the temperature of CLIP's own loss."""

NAMED = 5
"""Entries that a message names."""


def read_clip(path: Path) -> dict[str, Tensor]:
    """The weights of a CLIP checkpoint under OpenAI's names, in float32.

    Raises:
        CheckpointError: missing, truncated, or no CLIP of a vision transformer.
    """
    entries = _archive(path) if _is_torchscript(path) else _plain(path)
    weights = {_short(name): value for name, value in entries.items()}
    if "visual.class_embedding" not in weights:
        raise CheckpointError(
            f"{path} is no CLIP checkpoint with a vision transformer: it has no weight visual.class_embedding.\n"
            "Give OpenAI's ViT-B-16.pt, or an open_clip checkpoint of ViT-B-16"
        )
    return {name: value.float() for name, value in weights.items() if name not in NOT_WEIGHTS}


def load_clip(model: TCL, path: Path) -> None:
    """Fill both encoders of ``model`` from a CLIP checkpoint, and start its masker from them.

    Raises:
        CheckpointError: as :func:`read_clip`; or a weight is missing, too many, of another shape, or not finite.
    """
    if not isinstance(model.clip_image_encoder, ClipImageEncoder):
        raise CheckpointError(
            f"{model.spec.name} has no vision transformer that {path} could fill.\nUse it with tcl-vit-b16"
        )
    weights = read_clip(path)
    text = {name: value for name, value in weights.items() if not name.startswith("visual.")}
    image = {_image_name(name): value for name, value in weights.items() if name.startswith("visual.")}
    _load(model.clip_text_encoder, text, path, "text encoder")
    _load(model.clip_image_encoder, image, path, "image encoder")
    model.masker.start_from(model.clip_image_encoder)


def _is_torchscript(path: Path) -> bool:
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.partition("/")[2] == "constants.pkl" for name in archive.namelist())


def _archive(path: Path) -> Mapping[str, Tensor]:
    """A TorchScript archive's weights.

    Its program is not called; what TorchScript itself may run while it reads cannot be forbidden as with other files.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch discourages the format in which OpenAI published
            module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a TorchScript archive: {str(error).splitlines()[0]}"
        ) from error
    state: dict[str, Tensor] = module.state_dict()
    return state


def _plain(path: Path) -> Mapping[str, Tensor]:
    document = read_torch_file(path)
    entries = document.get("state_dict", document) if isinstance(document, dict) else None
    if not isinstance(entries, Mapping) or not all(isinstance(value, Tensor) for value in entries.values()):
        raise CheckpointError(f"{path} is a PyTorch file, but holds no CLIP: expected names and tensors")
    return entries


def _short(name: str) -> str:
    """Without what training on many devices, or open_clip's way of holding text encoders, puts before a name."""
    return name.removeprefix("module.").removeprefix("text.")


def _image_name(name: str) -> str:
    """OpenAI's name of an image weight -> TCL's, which has the last norm and projection apart."""
    inner = name.removeprefix("visual.")
    if inner == "proj" or inner.startswith("ln_post."):
        return f"clip_proj.{inner.replace('ln_post', 'ln')}"
    return f"clip_visual.{inner}"


def _load(part: torch.nn.Module, weights: Mapping[str, Tensor], path: Path, what: str) -> None:
    wanted = part.state_dict()
    missing, unknown = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    if missing or unknown:
        found = [
            f"{len(names)} {word} ({_some(names)})"
            for word, names in (("missing", missing), ("unknown", unknown))
            if names
        ]
        raise CheckpointError(
            f"{path} does not fit the {what}: of its weights, {' and '.join(found)}.\nIs it another size of CLIP?"
        )
    for name, value in weights.items():
        if value.shape != wanted[name].shape:
            raise CheckpointError(
                f"{path}: {name} of the {what} should be {list(wanted[name].shape)}, got {list(value.shape)}.\n"
                "Is it another size of CLIP?"
            )
        if not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"{path}: {name} of the {what} holds NaN or infinity; the file is damaged")
    part.load_state_dict(weights)


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
