"""Frames to learn from and frames to evaluate on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.labelling.splits import BLOCK, validation_blocks


@given(st.integers(2, 3000), st.floats(0.001, 0.9))
def test_both_sides_get_some_in_about_the_share_and_few_blocks(count: int, share: float) -> None:
    chosen = validation_blocks(np.ones(count, np.bool_), share)
    assert chosen is not None
    assert 1 <= chosen.sum() <= count - 1
    assert abs(chosen.sum() - count * share) <= 1
    borders = int(np.abs(np.diff(chosen.astype(int))).sum())
    assert borders <= 2 * -(-int(chosen.sum()) // BLOCK)


@given(st.lists(st.booleans(), max_size=80), st.floats(0.001, 0.9))
def test_both_sides_hold_something_if_two_frames_do(holds: list[bool], share: float) -> None:
    chosen = validation_blocks(np.array(holds, np.bool_), share)
    if sum(holds) < 2:
        assert chosen is None
    else:
        assert chosen is not None
        assert 0 < np.array(holds)[chosen].sum() < sum(holds)


@pytest.mark.parametrize(
    ("count", "share", "frames"),
    [(10, 0.2, [4, 5]), (2, 0.1, [1]), (640, 0.1, [*range(144, 176), *range(464, 496)])],
)
def test_a_block_is_in_the_middle_of_each_stretch(count: int, share: float, frames: list[int]) -> None:
    chosen = validation_blocks(np.ones(count, np.bool_), share)
    assert chosen is not None
    assert np.flatnonzero(chosen).tolist() == frames


def test_blocks_move_on_to_where_there_is_something() -> None:
    holds = np.zeros(10, np.bool_)
    holds[[0, 7]] = True
    chosen = validation_blocks(holds, 0.2)
    assert chosen is not None
    assert np.flatnonzero(chosen).tolist() == [6, 7]
