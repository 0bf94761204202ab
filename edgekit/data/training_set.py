"""Training samples: augmented, letterboxed, with the targets of the objectness network. numpy and cv2 only.

A sample depends on (seed, epoch, index) and nothing else, and the order of an epoch on (seed, epoch): any process can
make any sample, and a resumed run sees what an unbroken one would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.data.augment import Annotated, Image, augment, object_free_window
from edgekit.data.datasets import DetectionDataset, Sample
from edgekit.data.footage import Footage
from edgekit.data.letterbox import letterbox
from edgekit.masks.targets import objectness_targets

CELL = 16
"""Pixels of a mask cell."""

BACKDROP_TRIES = 6
"""Pictures searched for an object-free part; one VOC picture in four has one."""


@dataclass(frozen=True, kw_only=True)
class TrainingSample:
    """One picture as the model sees it."""

    image: NDArray[np.uint8]
    """[size, size, 3] letterboxed RGB."""

    boxes_xyxy: NDArray[np.float32]
    """[N, 4] input pixels."""

    class_ids: NDArray[np.int64]
    ignore: NDArray[np.bool_]

    labels: NDArray[np.float32]
    """[G, G] objectness, G = size / 16."""

    weights: NDArray[np.float32]
    """[G, G] weight of each label."""

    chance: float
    """Uniform in [0, 1): decides which kind of mask this picture is shown under."""


@dataclass(frozen=True, kw_only=True)
class SampleKey:
    """Names one training sample."""

    epoch: int
    index: int
    size: int


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """A data set seen through the augmentation; indexed by :class:`SampleKey`."""

    dataset: DetectionDataset
    seed: int
    augmentation: float
    mosaics: float = 0.0
    sparse_scenes: float = 0.0
    footage: Footage | None = None
    footage_share: float = 0.0
    """Share of the samples that are scenes of ``footage`` instead of the data set's."""

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: SampleKey) -> TrainingSample:
        rng = np.random.default_rng((self.seed, key.epoch, key.index))
        if self.footage is not None and rng.random() < self.footage_share:
            annotated = self.footage.scene(rng, size=key.size)
        else:
            annotated = self._augmented(self.dataset.samples[key.index], rng)
        boxed = letterbox(annotated.image, height=key.size, width=key.size)
        boxes = boxed.to_input(annotated.boxes_xyxy)
        grid = key.size // CELL
        labels, weights = objectness_targets(boxes, annotated.ignore, grid=grid, height=key.size, width=key.size)
        return TrainingSample(
            image=boxed.image,
            boxes_xyxy=boxes,
            class_ids=annotated.class_ids,
            ignore=annotated.ignore,
            labels=labels,
            weights=weights,
            chance=float(rng.random()),
        )

    def _augmented(self, sample: Sample, rng: np.random.Generator) -> Annotated:
        # Not for videos, where a frame out of order costs all before it.
        photograph = sample.frame_index is None
        return augment(
            _annotated(sample),
            rng,
            strength=self.augmentation,
            mosaics=self.mosaics,
            another=self._another if photograph else None,
            sparse_scenes=self.sparse_scenes,
            backdrop=self._backdrop if photograph else None,
        )

    def _another(self, rng: np.random.Generator) -> Annotated:
        return _annotated(self.dataset.samples[int(rng.integers(len(self.dataset)))])

    def _backdrop(self, rng: np.random.Generator) -> Image | None:
        """An object-free part of another picture."""
        for _ in range(BACKDROP_TRIES):
            other = self._another(rng)
            window = object_free_window(other.image, other.boxes_xyxy, rng)
            if window is not None:
                return window
        return None


def _annotated(sample: Sample) -> Annotated:
    return Annotated(
        image=sample.read(), boxes_xyxy=sample.boxes_xyxy, class_ids=sample.class_ids, ignore=sample.ignore
    )


def epoch_batches(
    *, count: int, epoch: int, size: int, batch_size: int, seed: int, rank: int = 0, processes: int = 1, start: int = 0
) -> Iterator[list[SampleKey]]:
    """This process's share of every batch of an epoch, from batch ``start`` on.

    The last, short batch is dropped unless it is the only one. Each global batch is the same however many processes
    divide it.
    """
    order = np.random.default_rng((seed, epoch)).permutation(count)
    for batch in range(start, batches_in_epoch(count, batch_size)):
        chosen = order[batch * batch_size : (batch + 1) * batch_size]
        share = np.array_split(chosen, processes)[rank]
        yield [SampleKey(epoch=epoch, index=int(index), size=size) for index in share]


def batches_in_epoch(count: int, batch_size: int) -> int:
    """Steps of an epoch over ``count`` pictures."""
    return max(1, count // batch_size)
