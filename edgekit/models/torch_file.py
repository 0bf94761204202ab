"""Files of ``torch.save``: read with ``weights_only=True``, so opening one from a stranger runs no code.

They are written beside their final place and renamed, so a kill leaves the old one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pickle
from pathlib import Path
from typing import Any

import torch

from edgekit.errors import CheckpointError, StorageError


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


def write_torch_file(path: Path, document: Any) -> None:
    """Write ``document`` atomically; its folder is made.

    Raises:
        StorageError: disk full or no permission; what was at ``path`` is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            torch.save(document, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        # torch.save reports a full disk as RuntimeError("... file write failed").
        with contextlib.suppress(OSError):  # the folder may be none
            temporary.unlink(missing_ok=True)
        raise StorageError(
            f"checkpoint {path} could not be written: {error}\nIs the disk full? df -h shows it."
        ) from error
