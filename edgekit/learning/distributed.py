"""One process or many: the same training, the same result (torchrun; gloo on CPU, NCCL on GPU).

Equality needs three things: every sum that a loss divides by is summed over the processes, gradients are averaged of
losses that were scaled up by the number of processes, and batch norm sees the whole batch. PyTorch's own
``SyncBatchNorm`` refuses CPU tensors, hence one of our own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from edgekit.errors import UsageError

PATIENCE = timedelta(hours=3)
"""The other processes wait for the first one's evaluation; on a slow machine and a large set that takes long."""


def choose_device(name: str) -> torch.device:
    """The device that ``--device NAME`` means to this process: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        UsageError: there is no GPU.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: PyTorch sees no GPU here. Train on the CPU with --device cpu.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name, local_rank()) if name == "cuda" else torch.device(name)


def start(device: torch.device) -> None:
    """Join the other processes if torchrun started several."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)


def stop() -> None:
    """Leave the group."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0; process 0 writes files and talks."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def local_rank() -> int:
    """This process's number on its host: which GPU it uses."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of ``value`` over all processes, without gradient."""
    total = value.detach().clone()
    if world_size() > 1:
        dist.all_reduce(total)
    return total


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Sum the gradients that ``parameters`` have in all processes, in one message.

    Losses are already divided by sums over all processes, so the sum is the gradient of the whole batch.
    """
    if world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    offset = 0
    for gradient in gradients:
        gradient.copy_(flat[offset : offset + gradient.numel()].view_as(gradient))
        offset += gradient.numel()


class _SumWithGradient(torch.autograd.Function):
    """Sum over the processes; the gradient is the sum of the gradients."""

    @staticmethod
    def forward(context: object, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: object, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _sum_with_gradient(value: Tensor) -> Tensor:
    total: Tensor = _SumWithGradient.apply(value)  # type: ignore[no-untyped-call]
    return total


class _Synced(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the batches of all processes, on any device; same state_dict as PyTorch's own."""

    def forward(self, input: Tensor) -> Tensor:
        """[B, C] or [B, C, H, W] -> the same shape."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        # Under mixed precision sums over a batch need float32; double stays double.
        values = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        others = [axis for axis in range(values.dim()) if axis != 1]
        shape = [-1, *[1] * (values.dim() - 2)]
        count = sum_over_processes(values.new_tensor(values.numel() / values.shape[1]))
        mean = _sum_with_gradient(values.sum(dim=others)) / count
        # Two passes: E[x^2] - E[x]^2 would lose the variance of channels with a large mean.
        centred = values - mean.view(shape)
        variance = _sum_with_gradient(centred.square().sum(dim=others)) / count
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.momentum is not None
            self.running_mean.lerp_(mean.detach(), self.momentum)
            self.running_var.lerp_(variance.detach() * count / (count - 1).clamp_min(1), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        scale = torch.rsqrt(variance + self.eps)
        if not self.affine:
            return (centred * scale.view(shape)).to(input.dtype)
        return (centred * (self.weight * scale).view(shape) + self.bias.view(shape)).to(input.dtype)


class SyncedBatchNorm1d(_Synced, nn.BatchNorm1d):
    """Over rows of features."""


class SyncedBatchNorm2d(_Synced, nn.BatchNorm2d):
    """Over feature maps."""


SYNCED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: SyncedBatchNorm1d,
    nn.BatchNorm2d: SyncedBatchNorm2d,
}


def synchronise_batch_norms(model: nn.Module) -> None:
    """Make every batch norm of ``model`` see all processes' batches, in place, when there are many processes."""
    if world_size() > 1:
        for module in model.modules():
            if type(module) in SYNCED:
                module.__class__ = SYNCED[type(module)]


def broadcast_object(value: Any) -> Any:
    """Process 0's ``value`` in every process."""
    box = [value]
    if world_size() > 1:
        dist.broadcast_object_list(box, src=0)
    return box[0]
