"""Samples and batches: the same for the same (seed, epoch, index), and boxes that belong to their views."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.data.training_set import SampleKey
from edgekit.pretraining.config import PretrainConfig
from edgekit.pretraining.pictures import open_pictures
from edgekit.pretraining.samples import ViewPair, ViewSet, collate, load_views


@pytest.fixture
def view_set(drawings: Path, tmp_path: Path) -> ViewSet:
    config = PretrainConfig(backbone="mobilenetv2", input_size=96, smallest_box=24)
    return ViewSet(pictures=open_pictures([drawings], tmp_path, interval_s=1.0)[0], config=config)


def key(index: int, *, epoch: int = 0) -> SampleKey:
    return SampleKey(epoch=epoch, index=index, size=96)


def same(one: ViewPair, two: ViewPair) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(two, name))
        for name in ("first", "second", "first_boxes", "second_boxes")
    )


def test_a_sample_depends_on_seed_epoch_and_index_alone(view_set: ViewSet) -> None:
    sample = view_set[key(3)]
    view_set[key(4)]
    assert same(sample, view_set[key(3)])
    assert not same(sample, view_set[key(3, epoch=1)])
    assert not same(sample, replace(view_set, config=replace(view_set.config, seed=1))[key(3)])
    assert sample.first.shape == sample.second.shape == (96, 96, 3)
    assert not np.array_equal(sample.first, sample.second)
    assert sample.label == 0


def test_byol_has_no_boxes(view_set: ViewSet) -> None:
    config = replace(view_set.config, method="byol")
    assert len(replace(view_set, config=config)[key(0)].first_boxes) == 0


def test_batches_have_first_views_then_second_ones_and_so_their_boxes(view_set: ViewSet) -> None:
    pairs = [view_set[key(index)] for index in range(6)]
    pairs[1] = replace(pairs[1], first_boxes=np.zeros((0, 4)), second_boxes=np.zeros((0, 4)))
    batch = collate(pairs)
    assert batch.views.shape == (12, 3, 96, 96)
    assert batch.views.dtype == torch.uint8
    assert batch.labels.tolist() == [pair.label for pair in pairs]
    half = len(batch.boxes) // 2
    assert half == sum(len(pair.first_boxes) for pair in pairs)
    assert 1 not in batch.boxes[:, 0].tolist()
    # Row k + half is the second view of row k.
    assert (batch.boxes[half:, 0] - 6).tolist() == batch.boxes[:half, 0].tolist()
    for row in range(6):
        for view, boxes, rows in (("first", "first_boxes", row), ("second", "second_boxes", row + 6)):
            assert np.array_equal(batch.views[rows].permute(1, 2, 0).numpy(), getattr(pairs[row], view))
            mine = batch.boxes[batch.boxes[:, 0] == rows][:, 1:]
            np.testing.assert_allclose(mine.numpy(), getattr(pairs[row], boxes), rtol=1e-6)


def test_many_workers_make_what_one_makes(view_set: ViewSet) -> None:
    keys = [[key(0), key(5)], [key(7), key(2)]]
    alone, together = (list(load_views(view_set, keys, workers=workers, pin_memory=False)) for workers in (0, 2))
    for one, two in zip(alone, together, strict=True):
        assert torch.equal(one.views, two.views)
        assert torch.equal(one.boxes, two.boxes)
