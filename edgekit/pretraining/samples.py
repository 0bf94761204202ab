"""Samples of pretraining: two views of a picture and the boxes that they share, and batches of them.

A sample depends on (seed, epoch, index) and nothing else: any process can make any sample, and a resumed run sees what
an unbroken one would have seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekit.data.training_set import SampleKey
from edgekit.learning.loading import read_ahead
from edgekit.pretraining.box_generator import NONE, Boxes, shared_boxes
from edgekit.pretraining.config import PretrainConfig
from edgekit.pretraining.crops import draw_crop
from edgekit.pretraining.pictures import Pictures
from edgekit.pretraining.views import FIRST, SECOND, make_view


@dataclass(frozen=True, kw_only=True)
class ViewPair:
    """Two views of one picture."""

    first: NDArray[np.uint8]
    second: NDArray[np.uint8]
    """[S, S, 3] RGB."""

    first_boxes: Boxes
    second_boxes: Boxes
    """[K, 4] xyxy in pixels of each view; row k of both shows the same place. K is 0 where they share too little."""

    label: int
    """Class of the picture, or ``UNLABELLED``."""


@dataclass(frozen=True, kw_only=True)
class ViewBatch:
    """One step's views; N pictures, R pairs of boxes."""

    views: Tensor
    """[2N, 3, S, S] uint8: all first views, then all second ones."""

    boxes: Tensor
    """[2R, 5] float32: row of ``views``, then xyxy in its pixels; rows R.. are the second views of rows 0..R-1."""

    labels: Tensor
    """[N] int64 class or ``UNLABELLED``."""

    def to(self, device: torch.device) -> ViewBatch:
        """The batch on ``device``."""
        return ViewBatch(
            views=self.views.to(device, non_blocking=True),
            boxes=self.boxes.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
        )


@dataclass(frozen=True, kw_only=True)
class ViewSet:
    """Pictures seen through augmentation; indexed by ``SampleKey``, whose ``size`` is the side of the views."""

    pictures: Pictures
    config: PretrainConfig

    def __len__(self) -> int:
        return len(self.pictures.items)

    def __getitem__(self, key: SampleKey) -> ViewPair:
        config = self.config
        rng = np.random.default_rng((config.seed, key.epoch, key.index))
        item = self.pictures.items[key.index]
        picture = item.read()
        height, width = picture.shape[:2]
        crops = [draw_crop(rng, height=height, width=width, smallest=config.smallest_crop) for _ in range(2)]
        boxes = (NONE, NONE)
        if config.method == "scrl":
            boxes = shared_boxes(
                rng,
                crops[0],
                crops[1],
                side=key.size,
                count=config.boxes,
                smallest=config.smallest_box,
                largest_iou=config.largest_iou,
            )
        return ViewPair(
            first=make_view(picture, crops[0], rng, FIRST, side=key.size),
            second=make_view(picture, crops[1], rng, SECOND, side=key.size),
            first_boxes=boxes[0],
            second_boxes=boxes[1],
            label=item.label,
        )


def collate(pairs: Sequence[ViewPair]) -> ViewBatch:
    """Stack pairs."""
    views = np.stack([pair.first for pair in pairs] + [pair.second for pair in pairs])
    every = [pair.first_boxes for pair in pairs] + [pair.second_boxes for pair in pairs]
    rows = [np.insert(boxes, 0, row, axis=1) for row, boxes in enumerate(every)]
    return ViewBatch(
        views=torch.from_numpy(views).permute(0, 3, 1, 2),
        boxes=torch.from_numpy(np.concatenate(rows).astype(np.float32)),
        labels=torch.tensor([pair.label for pair in pairs]),
    )


def load_views(
    view_set: ViewSet, keys: Iterable[list[SampleKey]], *, workers: int, pin_memory: bool
) -> Iterator[ViewBatch]:
    """The batches of ``keys`` in their order, read ahead by ``workers`` processes."""
    return read_ahead(view_set, keys, collate, workers=workers, pin_memory=pin_memory)
