"""How many CPU threads PyTorch uses in this process."""

from __future__ import annotations

from edgekit.errors import MissingDependencyError


def use_threads(threads: int | None) -> None:
    """Use ``threads``; ``None`` leaves PyTorch's choice. Programs that need PyTorch call it first.

    Raises:
        MissingDependencyError: PyTorch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError("torch", "segment", "segment pictures by words") from error
    if threads is not None:
        torch.set_num_threads(threads)
