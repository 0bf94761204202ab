"""YOLOX (arXiv 2107.08430) as a teacher: its predictions, and the features just before them, at strides 8, 16 and 32.

B batch, P places (cells of all three maps), K classes. At each stride a decoupled head ends in two towers, one for
boxes and one for classes (section 2.1, figure 2), of F channels each (64 in YOLOX-Nano).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from edgekit.errors import CheckpointError
from edgekit.models.ncnn_graph import Layer, read_ncnn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of RGB in 0..1, as the published ncnn files of YOLOX 0.1.0 want it."""

STRIDES = (8, 16, 32)


COCO_CLASSES = tuple(
    """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
    parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella,
    handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
    surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
    broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop,
    mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors,
    teddy bear, hair drier, toothbrush""".replace("\n", " ").split(", ")
)
"""What the 80 classes of a published YOLOX are; the files do not say."""

VOC_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
"""Classes that PASCAL VOC calls otherwise."""


def numbers_of(classes: Sequence[str]) -> dict[str, int]:
    """Each of a model's ``classes`` -> its place among them, by its own name and by COCO's."""
    places = {name: place for place, name in enumerate(classes)}
    return {VOC_NAMES.get(name, name): place for name, place in places.items()} | places


@dataclass(frozen=True)
class View:
    """What a YOLOX makes of pictures."""

    features: list[Tensor]
    """[B, 2F, H/s, W/s] for each of :data:`STRIDES`."""

    boxes: Tensor
    """[B, P, 4] xyxy input pixels."""

    scores: Tensor
    """[B, P, K] in 0..1: objectness times class, as in section 2.1."""


class YOLOX(nn.Module):
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
        self._blobs = tuple(blob for head in _heads(graph.layers, param) for blob in head)
        # What follows the predictions only rearranges them.
        needed = _ancestors(graph.layers, self._blobs)
        graph.layers = tuple(layer for layer in graph.layers if layer.name in needed)
        self.graph = graph.eval().requires_grad_(False)
        self.register_buffer("mean", 255 * torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", 255 * torch.tensor(STD)[:, None, None], persistent=False)
        view = self(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
        self.channels = tuple(int(features.shape[1]) for features in view.features)
        self.classes = COCO_CLASSES if view.scores.shape[-1] == len(COCO_CLASSES) else ()
        """Names of the K classes; empty where they are not known."""

    @torch.no_grad()
    def forward(self, images: Tensor) -> View:
        """RGB uint8 [B, 3, H, W], sides multiples of 32."""
        normalised = ((images.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        blobs = self.graph(normalised, self._blobs)
        features, boxes, scores = [], [], []
        for level, stride in enumerate(STRIDES):
            box_tower, class_tower, prediction = blobs[3 * level : 3 * level + 3]
            features.append(torch.cat([box_tower, class_tower], dim=1))
            boxes.append(_decode(prediction[:, :4], stride))
            scores.append((prediction[:, 4:5] * prediction[:, 5:]).flatten(2).transpose(1, 2))
        return View(features, torch.cat(boxes, dim=1), torch.cat(scores, dim=1))


def _decode(raw: Tensor, stride: int) -> Tensor:
    """[B, 4, rows, columns] centre relative to the cell's corner and log size, in cells -> [B, rows * columns, 4]."""
    rows, columns = raw.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(rows, device=raw.device), torch.arange(columns, device=raw.device), indexing="ij"
    )
    centre, half = raw[:, :2] + torch.stack([x, y]), raw[:, 2:].exp() / 2
    return stride * torch.cat([centre - half, centre + half], dim=1).flatten(2).transpose(1, 2)


def _heads(layers: tuple[Layer, ...], param: Path) -> list[tuple[str, str, str]]:
    """(box tower, class tower, prediction) at each stride: what the first and last convolution read, and all give."""
    makers = {blob: layer for layer in layers for blob in layer.outputs}

    def origin(blob: str) -> Layer:
        layer = makers[blob]
        return origin(layer.inputs[0]) if layer.kind == "Split" else layer

    heads = []
    for layer in layers:
        parts = [origin(blob) for blob in layer.inputs] if layer.kind == "Concat" else []
        # Box (4), objectness (1) and classes side by side are a YOLOX prediction, and nothing else is.
        if len(parts) == 3 and [part.number(0) for part in parts[:2]] == [4, 1]:
            heads.append((parts[0].inputs[0], parts[2].inputs[0], layer.outputs[0]))
    if len(heads) != len(STRIDES):
        raise CheckpointError(
            f"{param} is no YOLOX: it has {len(heads)} predictions of box, objectness and classes, not {len(STRIDES)}"
        )
    return heads


def _ancestors(layers: tuple[Layer, ...], blobs: tuple[str, ...]) -> set[str]:
    wanted, names = set(blobs), set()
    for layer in reversed(layers):
        if wanted & set(layer.outputs):
            wanted |= set(layer.inputs)
            names.add(layer.name)
    return names
