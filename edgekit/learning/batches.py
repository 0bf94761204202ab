"""From training samples to tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgekit.data.training_set import SampleKey, TrainingSample, TrainingSet
from edgekit.learning.loading import read_ahead
from edgekit.learning.losses import Truth
from edgekit.spec import DetectorSpec


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One step's pictures and targets; B pictures, G mask cells a side."""

    images: Tensor
    """[B, 3, size, size] uint8, channels-last in memory."""

    truth: Truth
    labels: Tensor
    """[B, 1, G, G] objectness."""

    weights: Tensor
    """[B, 1, G, G]."""

    chance: Tensor
    """[B] uniform in [0, 1)."""

    def to(self, device: torch.device) -> Batch:
        """The batch on ``device``."""
        move = {"device": device, "non_blocking": True}
        return Batch(
            images=self.images.to(**move),  # type: ignore[call-overload]
            truth=Truth(
                boxes=self.truth.boxes.to(**move),  # type: ignore[call-overload]
                classes=self.truth.classes.to(**move),  # type: ignore[call-overload]
                kind=self.truth.kind.to(**move),  # type: ignore[call-overload]
            ),
            labels=self.labels.to(**move),  # type: ignore[call-overload]
            weights=self.weights.to(**move),  # type: ignore[call-overload]
            chance=self.chance.to(**move),  # type: ignore[call-overload]
        )


def collate(samples: Sequence[TrainingSample]) -> Batch:
    """Stack samples, padding the boxes to the longest list."""
    longest = max((len(sample.class_ids) for sample in samples), default=0)
    boxes = torch.zeros(len(samples), longest, 4)
    classes = torch.zeros(len(samples), longest, dtype=torch.long)
    kind = torch.zeros(len(samples), longest, dtype=torch.long)
    for row, sample in enumerate(samples):
        count = len(sample.class_ids)
        boxes[row, :count] = torch.from_numpy(sample.boxes_xyxy)
        classes[row, :count] = torch.from_numpy(sample.class_ids)
        kind[row, :count] = torch.from_numpy(np.where(sample.ignore, -1, 1))
    return Batch(
        images=torch.from_numpy(np.stack([sample.image for sample in samples])).permute(0, 3, 1, 2),
        truth=Truth(boxes=boxes, classes=classes, kind=kind),
        labels=torch.from_numpy(np.stack([sample.labels for sample in samples]))[:, None],
        weights=torch.from_numpy(np.stack([sample.weights for sample in samples]))[:, None],
        chance=torch.tensor([sample.chance for sample in samples]),
    )


def load_batches(
    training_set: TrainingSet, keys: Iterable[list[SampleKey]], *, workers: int, pin_memory: bool
) -> Iterator[Batch]:
    """The batches of ``keys`` in their order, read ahead by ``workers`` processes."""
    return read_ahead(training_set, keys, collate, workers=workers, pin_memory=pin_memory)


def normalise(images: Tensor, spec: DetectorSpec) -> Tensor:
    """uint8 [B, 3, H, W] -> float32 in [-1, 1), as the runtime does it."""
    return (images.float() - spec.mean) / spec.std
