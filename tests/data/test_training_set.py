"""Order and content of training samples depend on (seed, epoch, index) alone."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.data.training_set import batches_in_epoch, epoch_batches


def indices(**changes: int) -> list[list[int]]:
    settings = {"count": 22, "epoch": 3, "size": 64, "batch_size": 4, "seed": 1, **changes}
    return [[key.index for key in batch] for batch in epoch_batches(**settings)]


def test_an_epoch_visits_pictures_once_in_whole_batches() -> None:
    batches = indices()
    assert [len(batch) for batch in batches] == [4] * 5
    assert len({index for batch in batches for index in batch}) == 20


def test_a_small_set_is_one_short_batch() -> None:
    assert [len(batch) for batch in indices(count=3)] == [3]
    assert batches_in_epoch(3, 4) == 1


def test_epochs_differ_and_repeat() -> None:
    assert indices() == indices()
    assert indices() != indices(epoch=4)
    assert indices() != indices(seed=2)


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_each_global_batch(processes: int) -> None:
    parts = [indices(rank=rank, processes=processes) for rank in range(processes)]
    joined = [[index for share in shares for index in share] for shares in zip(*parts, strict=True)]
    assert joined == indices()


def test_a_resumed_epoch_goes_on_where_it_was() -> None:
    assert indices(start=2) == indices()[2:]


def test_the_order_is_a_permutation() -> None:
    assert sorted(np.concatenate(indices(count=20, batch_size=5))) == list(range(20))
