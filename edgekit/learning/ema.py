"""Exponential moving average of a model's weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from edgekit.models.masked_detector import MaskedDetector


class WeightAverage:
    """An averaged copy of a model, parameters and buffers alike: it scores better than the last step."""

    def __init__(self, model: MaskedDetector, decay: float) -> None:
        self.model: MaskedDetector = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards ``model``; early updates move further, so the average does not remember its start."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        # Each tensor once: a state_dict has those of a DETR's heads under two or three names.
        for mine, theirs in zip(_tensors(self.model), _tensors(model), strict=True):
            if mine.dtype.is_floating_point:
                mine.lerp_(theirs, 1 - decay)
            else:
                mine.copy_(theirs)


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()
