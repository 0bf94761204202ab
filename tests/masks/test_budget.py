"""A budget keeps the likeliest cells of a mask, and asks nobody where the mask is small enough."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit.data.letterbox import letterbox
from edgekit.masks.budget import Budget
from edgekit.masks.pyramid import Mask
from edgekit.masks.reuse import video_mask
from edgekit.masks.sources import MaskInput
from edgekit.spec import DetectorSpec

GRID = (4, 5)


def frame(objectness: Callable[[], NDArray[np.float32]]) -> MaskInput:
    spec = DetectorSpec(model="a", classes=("b",), height=64, width=80, anchors=(), mask_grid=GRID)
    picture = letterbox(np.zeros((64, 80, 3), np.uint8), height=64, width=80)
    return MaskInput(letterboxed=picture, spec=spec, objectness=objectness)


def never() -> NDArray[np.float32]:
    raise AssertionError("the OMG network was asked")


@given(seed=st.integers(0, 10_000), share=st.floats(0.01, 1))
def test_the_likeliest_cells_of_the_mask_are_kept(seed: int, share: float) -> None:
    generator = np.random.default_rng(seed)
    wanted: Mask = generator.random(GRID) < 0.6
    objectness = generator.random(GRID, np.float32)
    kept = Budget(lambda _: wanted, share=share)(frame(lambda: objectness))
    assert not (kept & ~wanted).any()
    assert kept.sum() == min(wanted.sum(), max(1, int(share * wanted.size + 1e-9)))
    dropped = wanted & ~kept
    assert not dropped.any() or objectness[dropped].max() <= objectness[kept].min()


def test_nobody_is_asked_where_the_mask_is_small_enough() -> None:
    few = np.zeros(GRID, np.bool_)
    few[0, :4] = True
    assert (Budget(lambda _: few, share=0.2)(frame(never)) == few).all()
    with pytest.raises(AssertionError, match="the OMG network was asked"):
        Budget(lambda _: few, share=0.15)(frame(never))
    assert not Budget(lambda _: np.zeros(GRID, np.bool_), share=0.01)(frame(never)).any()


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, float("nan")])
def test_a_budget_is_a_share(share: float) -> None:
    with pytest.raises(ValueError, match="a budget is a share of the cells, above 0 and at most 1"):
        Budget(lambda _: np.ones(GRID, np.bool_), share=share)


def test_keyframes_obey_it_too() -> None:
    objectness = np.linspace(0, 1, 20, dtype=np.float32).reshape(GRID)
    seen = frame(lambda: objectness)
    mask = video_mask("tracks", seen.spec, keyframe_frames=1, budget=0.25)(seen)
    assert mask.sum() == 5
    assert mask[3].all()
