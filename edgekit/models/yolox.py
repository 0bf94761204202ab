"""YOLOX (arXiv 2107.08430) as a teacher: the features just before its predictions, at strides 8, 16 and 32.

B batch. At each stride a decoupled head ends in two towers, one for boxes and one for classes (section 2.1, figure 2),
of F channels each (64 in YOLOX-Nano).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from edgekit.errors import CheckpointError
from edgekit.models.ncnn_graph import Layer, read_ncnn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of RGB in 0..1, as the published ncnn files of YOLOX 0.1.0 want it."""

STRIDES = (8, 16, 32)


class YOLOXFeatures(nn.Module):
    """A YOLOX that someone else trained, frozen."""

    mean: Tensor
    std: Tensor

    def __init__(self, param: Path) -> None:
        """Read ``param`` and the ``.bin`` file beside it.

        Raises:
            CheckpointError: not an ncnn file, or not a YOLOX.
        """
        super().__init__()
        graph = read_ncnn(param)
        self._blobs = tuple(blob for pair in _towers(graph.layers, param) for blob in pair)
        # What follows the towers is not needed.
        needed = _ancestors(graph.layers, self._blobs)
        graph.layers = tuple(layer for layer in graph.layers if layer.name in needed)
        self.graph = graph.eval().requires_grad_(False)
        self.channels = self._channels()
        self.register_buffer("mean", 255 * torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", 255 * torch.tensor(STD)[:, None, None], persistent=False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """RGB uint8 [B, 3, H, W], sides multiples of 32 -> [B, 2F, H/s, W/s] for each of :data:`STRIDES`."""
        normalised = ((images.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        features = self.graph(normalised, self._blobs)
        return [torch.cat([features[2 * level], features[2 * level + 1]], dim=1) for level in range(len(STRIDES))]

    def _channels(self) -> tuple[int, ...]:
        with torch.no_grad():
            features = self.graph(torch.zeros(1, 3, 64, 64), self._blobs)
        shapes = [feature.shape for feature in features]
        return tuple(int(shapes[2 * level][1] + shapes[2 * level + 1][1]) for level in range(len(STRIDES)))


def _towers(layers: tuple[Layer, ...], param: Path) -> list[tuple[str, str]]:
    """(box tower, class tower) at each stride: what the first and last convolution of each prediction read."""
    makers = {blob: layer for layer in layers for blob in layer.outputs}

    def origin(blob: str) -> Layer:
        layer = makers[blob]
        return origin(layer.inputs[0]) if layer.kind == "Split" else layer

    towers = []
    for layer in layers:
        heads = [origin(blob) for blob in layer.inputs] if layer.kind == "Concat" else []
        # Box (4), objectness (1) and classes side by side are a YOLOX prediction, and nothing else is.
        if len(heads) == 3 and [head.number(0) for head in heads[:2]] == [4, 1]:
            towers.append((heads[0].inputs[0], heads[2].inputs[0]))
    if len(towers) != len(STRIDES):
        raise CheckpointError(
            f"{param} is no YOLOX: it has {len(towers)} predictions of box, objectness and classes, not {len(STRIDES)}"
        )
    return towers


def _ancestors(layers: tuple[Layer, ...], blobs: tuple[str, ...]) -> set[str]:
    wanted, names = set(blobs), set()
    for layer in reversed(layers):
        if wanted & set(layer.outputs):
            wanted |= set(layer.inputs)
            names.add(layer.name)
    return names
