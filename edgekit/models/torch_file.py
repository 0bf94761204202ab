"""Files that ``torch.save`` wrote, read with ``weights_only=True``: opening one from a stranger runs no code."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

import torch

from edgekit.errors import CheckpointError


def read_torch_file(path: Path) -> Any:
    """What the file holds, tensors on the CPU.

    Raises:
        CheckpointError: missing, truncated, or more than tensors and plain values.
    """
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist")
    try:
        # Published checkpoints hold their program's options, too: plain values in an object without a method.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint: {first_line}\nIs it truncated, or written by another program?"
        ) from error
