"""From crops with captions to tensors, step after step without an end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from torch import Tensor

from edgekit.data.pair_crops import PairCrops, PairSample
from edgekit.data.training_set import SampleKey, batches_in_epoch, epoch_batches
from edgekit.learning.loading import read_ahead


@dataclass(frozen=True, kw_only=True)
class PairBatch:
    """One step's pairs: B pictures of side S, K captions, L tokens."""

    images: Tensor
    """[B, 3, S, S] uint8."""

    tokens: Tensor
    """[B, L] of one caption a picture."""

    captions: Tensor
    """[B, K, L] of all of them."""

    def to(self, device: torch.device) -> PairBatch:
        """The batch on ``device``."""
        return PairBatch(
            images=self.images.to(device), tokens=self.tokens.to(device), captions=self.captions.to(device)
        )


def collate_pairs(samples: Sequence[PairSample]) -> PairBatch:
    """Stack samples."""
    return PairBatch(
        images=torch.from_numpy(np.stack([sample.image for sample in samples])).permute(0, 3, 1, 2),
        tokens=torch.from_numpy(np.stack([sample.tokens for sample in samples])),
        captions=torch.from_numpy(np.stack([sample.captions for sample in samples])),
    )


def endless_keys(
    *, total: int, side: int, batch_size: int, seed: int, rank: int, processes: int, first_step: int
) -> Iterator[list[SampleKey]]:
    """One process's keys of each step from ``first_step`` on, epoch after epoch of ``total`` pairs."""
    steps = batches_in_epoch(total, batch_size)
    for epoch in count(first_step // steps):
        start = first_step % steps if epoch == first_step // steps else 0
        yield from epoch_batches(
            count=total, epoch=epoch, size=side, batch_size=batch_size, seed=seed, rank=rank, processes=processes,
            start=start,
        )  # fmt: skip


def load_pair_batches(crops: PairCrops, keys: Iterator[list[SampleKey]], *, workers: int) -> Iterator[PairBatch]:
    """The batches of ``keys`` in their order, read ahead by ``workers`` processes."""
    return read_ahead(crops, keys, collate_pairs, workers=workers)
