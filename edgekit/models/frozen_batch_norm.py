"""Batch norm with fixed statistics and a fixed affine map: how DETR and its descendants fine-tune a ResNet.

A detector's batches are too small to measure statistics on (2 pictures a GPU in Sparse DETR, arXiv 2111.14330), so
those of ImageNet stay, and the scale and shift that belong to them (DETR, arXiv 2005.12872, appendix A.4).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class FrozenBatchNorm2d(nn.Module):
    """(x - running_mean) / sqrt(running_var + eps) * weight + bias for each channel, in training too.

    The four vectors [channels] are buffers, under the names of ``nn.BatchNorm2d``. A new one is the identity, but
    for ``eps``.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, features: Tensor) -> Tensor:
        """[B, channels, H, W] -> the same shape."""
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        shift = self.bias - self.running_mean * scale
        return features * scale[:, None, None] + shift[:, None, None]

    def extra_repr(self) -> str:
        """What ``repr`` shows between the parentheses."""
        return f"{len(self.weight)}, eps={self.eps}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # nn.BatchNorm2d counts its batches, and published ResNets carry the count; nothing here depends on it.
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *rest)
