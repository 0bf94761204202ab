"""Rows of all processes, through which gradients flow back: contrastive losses compare with every process's texts."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from edgekit.learning import distributed


class _Gather(torch.autograd.Function):
    """Concatenate over the processes; the gradient of a row is the sum over all that used it."""

    @staticmethod
    def forward(context: object, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(distributed.world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: object, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total.chunk(distributed.world_size())[distributed.rank()]


def gather_with_gradient(rows: Tensor) -> Tensor:
    """[B, ...] of this process -> [N, ...] of all, in the order of their numbers; each has the same B."""
    if distributed.world_size() == 1:
        return rows
    everyone: Tensor = _Gather.apply(rows)  # type: ignore[no-untyped-call]
    return everyone
