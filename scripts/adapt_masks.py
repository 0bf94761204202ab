#!/usr/bin/env python3
"""Adapt a mask network to fixed cameras, and keep what it knows of photographs.

``scripts/adapt_masks.py CHECKPOINT --photos DIR --footage DIR --cutouts DIR -o OUT.pt``. The footage is a data set of
frames, for example from ``scripts/label_footage.py``; the cutouts come from one with outlines, as COCO is.

A threshold that keeps 98 % of the objects in photographs calls half of a car park doubtful. The network can tell the
two apart, but has no reason to until it has seen footage. There a background cell weighs ``--background`` times as
much, because the same clutter costs every frame of the day. A few fixed cameras show few objects, always in the same
places, so cutouts of others are pasted anywhere.

On photographs the network is mostly held to its own answers (learning without forgetting, arXiv 1606.09282): trained
on their labels only, it learns them by heart. Each round holds it to what it answered when the round began.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from edgekit.data.datasets import open_dataset
from edgekit.data.footage import Footage, open_footage
from edgekit.data.letterbox import letterbox
from edgekit.data.training_set import CELL, SampleKey, TrainingSet
from edgekit.errors import EdgekitError
from edgekit.learning.batches import normalise
from edgekit.learning.ema import WeightAverage
from edgekit.learning.losses import objectness_loss
from edgekit.masks.targets import objectness_targets
from edgekit.models.checkpoint import load_checkpoint, save_checkpoint
from edgekit.models.masked_detector import MaskedDetector
from edgekit.models.yolox import numbers_of

PHOTOS, FRAMES = 16, 10
"""In a step."""

WARM_UP = 50
"""Steps."""

Cells = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]
"""Picture [size, size, 3], labels and weights [G, G]."""


@dataclass(frozen=True, kw_only=True)
class Steps(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Step ``i`` of a run: photographs, then frames, with their labels and weights; depends on (seed, i) alone."""

    photos: TrainingSet
    footage: Footage
    size: int
    background: float
    steps: int
    seed: int

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        rng = np.random.default_rng((self.seed, step))
        cells = [self._photo(rng, step) for _ in range(PHOTOS)] + [self._frame(rng) for _ in range(FRAMES)]
        images, labels, weights = (torch.from_numpy(np.stack(part)) for part in zip(*cells, strict=True))
        return images.permute(0, 3, 1, 2), labels[:, None], weights[:, None]

    def _photo(self, rng: np.random.Generator, step: int) -> Cells:
        sample = self.photos[SampleKey(epoch=step, index=int(rng.integers(len(self.photos))), size=self.size)]
        return sample.image, sample.labels, sample.weights

    def _frame(self, rng: np.random.Generator) -> Cells:
        frame = self.footage.scene(rng, size=self.size)
        boxed = letterbox(frame.image, height=self.size, width=self.size)
        labels, weights = objectness_targets(
            boxed.to_input(frame.boxes_xyxy),
            frame.ignore,
            grid=self.size // CELL,
            height=self.size,
            width=self.size,
        )
        return boxed.image, labels, np.where(labels > 0, weights, self.background * weights).astype(np.float32)


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--photos", type=click.Path(exists=True, path_type=Path), required=True, help="What it was trained on.")
@click.option("--footage", type=click.Path(exists=True, path_type=Path), required=True, help="Labelled frames.")
@click.option("--cutouts", type=click.Path(exists=True, path_type=Path), required=True, help="Outlined objects (COCO).")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The adapted checkpoint.")
@click.option("--rounds", type=click.IntRange(1), default=2, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=500, show_default=True, help="In each round.")
@click.option("--learning-rate", type=float, default=3e-4, show_default=True)
@click.option("--background", type=float, default=4.0, show_default=True, help="Weight of the footage's background.")
@click.option("--keep", type=click.FloatRange(0, 1), default=0.7, show_default=True,
              help="Share of the network's own answers in what is asked of it on photographs.")  # fmt: skip
@click.option("--seed", default=0, show_default=True)
@click.option("--workers", default=2, show_default=True)
def main(
    checkpoint: Path,
    photos: Path,
    footage: Path,
    cutouts: Path,
    output: Path,
    rounds: int,
    steps: int,
    learning_rate: float,
    background: float,
    keep: float,
    seed: int,
    workers: int,
) -> None:
    """Adapt the mask network of CHECKPOINT; its detector and its thresholds stay as they are."""
    try:
        trained = load_checkpoint(checkpoint).without_state()
        training = open_dataset(photos, "train", trained.spec.classes)
        # Every object is one, whatever its class; about what the model has no class for it is not asked.
        scenes = open_footage(footage, cutouts, dict.fromkeys(numbers_of(trained.spec.classes), 0))
    except EdgekitError as error:
        raise click.ClickException(str(error)) from error
    data = Steps(
        photos=TrainingSet(dataset=training, seed=seed, augmentation=1.0, mosaics=0.15, sparse_scenes=0.2),
        footage=scenes,
        size=trained.spec.height,
        background=background,
        steps=steps,
        seed=seed,
    )
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}")
        batches = DataLoader(replace(data, seed=seed + number), batch_size=None, num_workers=workers)
        adapt(trained.model.eval(), batches, learning_rate=learning_rate, keep=keep)
    seen_before = trained.provenance.get("training_data", "unknown data")
    learnt = f"{seen_before}; the mask network also {scenes.name}"
    save_checkpoint(output, replace(trained, provenance={**trained.provenance, "training_data": learnt}))


def adapt(
    model: MaskedDetector, batches: DataLoader[tuple[Tensor, Tensor, Tensor]], *, learning_rate: float, keep: float
) -> None:
    """One round, in place; the mask network becomes the average of its last steps."""
    before = copy.deepcopy(model.omg).requires_grad_(False)
    average = WeightAverage(model, decay=0.99)
    # Batch norms stay in evaluation mode: their statistics are the photographs'.
    optimiser = torch.optim.AdamW(model.omg.parameters(), lr=learning_rate, weight_decay=0.01)
    steps = len(batches)
    for step, (images, labels, weights) in enumerate(batches):
        pictures = normalise(images, model.spec).contiguous(memory_format=torch.channels_last)
        rate = learning_rate * min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + np.cos(np.pi * step / steps))
        optimiser.param_groups[0]["lr"] = rate
        objectness = model.omg(pictures)
        with torch.no_grad():
            own = torch.sigmoid(before(pictures[:PHOTOS]))
        asked = (1 - keep) * labels[:PHOTOS] + keep * own
        # Its own answers weigh 1 wherever they are asked; the weights of the labels are in them already.
        mixed = (1 - keep) * weights[:PHOTOS] + keep * weights[:PHOTOS].clamp_min(1)
        on_photos = objectness_loss(objectness[:PHOTOS], asked, mixed)
        on_frames = objectness_loss(objectness[PHOTOS:], labels[PHOTOS:], weights[PHOTOS:])
        (on_photos + on_frames).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.omg.parameters(), 5.0)
        optimiser.step()
        optimiser.zero_grad()
        average.update(model)
        if (step + 1) % 50 == 0 or step + 1 == steps:
            print(f"step {step + 1} of {steps}: photographs {on_photos:.3f}, footage {on_frames:.3f}", flush=True)
    model.omg.load_state_dict(average.model.omg.state_dict())


if __name__ == "__main__":
    main()
