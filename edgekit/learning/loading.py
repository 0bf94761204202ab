"""Samples by their keys -> batches, read ahead by other processes: the same way for everything that trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from edgekit.data.training_set import SampleKey

Sample = TypeVar("Sample")
Sample_co = TypeVar("Sample_co", covariant=True)
Loaded = TypeVar("Loaded")


class ByKey(Protocol[Sample_co]):
    """Makes the sample of a key, in any process the same."""

    def __getitem__(self, key: SampleKey) -> Sample_co:
        """The sample of ``key``."""


def read_ahead(
    samples: ByKey[Sample],
    keys: Iterable[list[SampleKey]],
    collate: Callable[[list[Sample]], Loaded],
    *,
    workers: int,
    pin_memory: bool = False,
) -> Iterator[Loaded]:
    """The batches of ``keys``, which may never end, in their order, read ahead by ``workers`` processes."""
    loader: DataLoader[Any] = DataLoader(
        _Samples(samples),
        batch_sampler=_Keys(keys),
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=_start_worker if workers else None,
        pin_memory=pin_memory,
    )
    yield from loader


class _Samples(Dataset[Sample]):
    """What ``DataLoader`` wants to see."""

    def __init__(self, samples: ByKey[Sample]) -> None:
        self._samples = samples

    def __getitem__(self, key: SampleKey) -> Sample:
        return self._samples[key]


class _Keys:
    """Keys without a length: of an endless training there is always another step."""

    def __init__(self, keys: Iterable[list[SampleKey]]) -> None:
        self._keys = keys

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return iter(self._keys)


def _start_worker(_: int) -> None:
    """One thread a worker: the cores belong to the network."""
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
