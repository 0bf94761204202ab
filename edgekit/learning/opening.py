"""What the opening of any run begins with: threads, the device, other processes, and the folder's earlier run."""

from __future__ import annotations

from pathlib import Path

import torch

from edgekit.errors import CheckpointError, UsageError
from edgekit.learning import distributed
from edgekit.learning.allocator import keep_freed_memory


def open_place(*, device: str, threads: int | None) -> torch.device:
    """Where this process trains, with the other processes that torchrun started.

    Args:
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: CPU threads; ``None`` leaves PyTorch's choice.

    Raises:
        UsageError: there is no GPU.
    """
    if threads:
        torch.set_num_threads(threads)
    place = distributed.choose_device(device)
    if place.type == "cpu":
        keep_freed_memory()
    distributed.start(place)
    return place


def last_checkpoint(output: Path, *, resume: bool) -> Path:
    """``output/last.pt``, which is there if the run goes on, and is not if it begins.

    Raises:
        CheckpointError: there is nothing to resume.
        UsageError: another run would be overwritten.
    """
    last = output / "last.pt"
    if resume and not last.is_file():
        raise CheckpointError(f"nothing to resume: {last} does not exist. Start the run without --resume.")
    if not resume and last.is_file():
        raise UsageError(f"{output} already holds a run; go on with --resume, or choose another -o folder")
    return last
