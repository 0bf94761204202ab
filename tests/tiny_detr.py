"""A Sparse DETR in miniature, every number off its start, and what PyTorch makes of a picture and a mask with it.

Input 96x96; maps of 12x12, 6x6, 3x3 and 2x2 cells under a mask of 3x3.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edgekit.exporters.detr_onnx import write_static
from edgekit.models.masking import MaskPyramid
from edgekit.models.resnet import ResNet
from edgekit.models.sparse_detr import DetrSize, SparseDetr
from edgekit.models.static_detr import StaticDetr
from edgekit.spec import DetectorSpec, Detr

SIDE = 96
GRID = (3, 3)
SHAPES = ((12, 12), (6, 6), (3, 3), (2, 2))
SIZE = DetrSize(width=32, heads=4, points=2, encoder_layers=3, decoder_layers=2, feed_forward=32, queries=7)
Arrays = dict[str, NDArray[np.float32]]


def network(*, two_stage: bool = True, share: float | None = 0.3) -> SparseDetr:
    torch.manual_seed(3)
    made = SparseDetr(ResNet(layers=(1, 1, 1, 1), width=8), classes=5, size=SIZE, two_stage=two_stage, share=share)
    with torch.no_grad():
        for item in made.parameters():
            item += 0.05 * torch.randn_like(item)
        for name, item in made.named_parameters():
            if "sampling_offsets.bias" in name:
                item *= 0.5  # so that more points lie on the small maps
    return made.eval()


def inputs(*, masked: bool) -> Arrays:
    """A picture, and a mask with one active cell."""
    image = np.random.default_rng(5).normal(size=(1, 3, SIDE, SIDE)).astype(np.float32)
    if not masked:
        return {"image": image}
    mask = np.zeros((1, 1, *GRID), np.float32)
    mask[0, 0, 1, 2] = 1
    return {"image": image, "mask": mask}


def export_whole(model: SparseDetr, path: Path, *, masked: bool) -> None:
    """All stages as one graph."""
    static = StaticDetr(copy.deepcopy(model), height=SIDE, width=SIDE).eval()
    given = {name: torch.from_numpy(value) for name, value in inputs(masked=masked).items()}
    write_static(static, given, ["class_logits", "boxes"], path)


def spec(share: float | None) -> DetectorSpec:
    return DetectorSpec(
        model="sparse-detr-r50-omg",
        classes=tuple("abcde"),
        height=SIDE,
        width=SIDE,
        anchors=(),
        detr=Detr(queries=SIZE.queries, token_share=share),
        mask_grid=GRID,
    )


def expected(model: SparseDetr, given: Arrays) -> Arrays:
    """``class_logits`` and ``boxes`` of PyTorch."""
    pyramid = MaskPyramid(torch.from_numpy(given["mask"]) if "mask" in given else None)
    with torch.no_grad():
        result = model(pyramid.apply(torch.from_numpy(given["image"])), pyramid=pyramid).decoder[-1]
    return {"class_logits": result.logits.numpy(), "boxes": result.boxes.numpy()}
