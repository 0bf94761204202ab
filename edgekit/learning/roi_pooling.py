"""RoI max pooling of a whole batch with gradients: in edgekit's own kernels on a CPU, in PyTorch's on a GPU.

A loop over RoIs in PyTorch writes a gradient of the size of the whole feature map for each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekit.backends.native import require
from edgekit.boxes import Boxes
from edgekit.models.pvanet_head import pool_rois
from edgekit.models.pvanet_rois import POOLED


def pool_batch(features: Tensor, rois: Sequence[Boxes]) -> Tensor:
    """[R, C, 6, 6] maxima in the RoIs of all pictures, one picture after the other; gradients reach ``features``.

    The same numbers as ``edgekit.models.pvanet_rois.pool_rois``, and the same gradients but among equal maxima.

    Args:
        features: [B, C, H, W].
        rois: for each picture [R, 4] with inclusive corners in input pixels.

    Raises:
        EngineError: the kernels cannot be loaded.
    """
    if features.device.type != "cpu":
        return torch.cat(
            [pool_rois(picture, torch.from_numpy(boxes)) for picture, boxes in zip(features, rois, strict=True)]
        )
    pooled: Tensor = _Pooling.apply(features, rois)  # type: ignore[no-untyped-call]
    return pooled


class _Pooling(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, features: Tensor, rois: Sequence[Boxes]) -> Tensor:
        context.save_for_backward(features)
        context.rois = rois
        maps, channels, grid = _rows(features)
        pooled = [
            require().pool_rois(rows, grid=grid, rois=boxes, places=len(boxes))
            for rows, boxes in zip(maps, rois, strict=True)
        ]
        together = torch.cat([torch.from_numpy(values) for values in pooled])
        return together.view(-1, channels, POOLED, POOLED).to(features.dtype)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (features,) = context.saved_tensors
        maps, channels, (height, width) = _rows(features)
        weights = gradients[0].float().contiguous().view(-1, channels * POOLED * POOLED).numpy()
        sums, first = [], 0
        for rows, boxes in zip(maps, context.rois, strict=True):
            here = weights[first : first + len(boxes)]
            sums.append(require().pool_rois_gradient(rows, grid=(height, width), rois=boxes, gradient=here))
            first += len(boxes)
        stacked = torch.stack([torch.from_numpy(values) for values in sums])
        return stacked.view(-1, height, width, channels).permute(0, 3, 1, 2).to(features.dtype), None


def _rows(features: Tensor) -> tuple[NDArray[np.float32], int, tuple[int, int]]:
    """[B, C, H, W] as [B, H * W, C], C, and (H, W); of channels-last features nothing is copied."""
    batch, channels, height, width = (int(side) for side in features.shape)
    rows = features.detach().float().permute(0, 2, 3, 1).reshape(batch, -1, channels).contiguous()
    return rows.numpy(), channels, (height, width)
