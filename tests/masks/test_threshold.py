"""Which cells objectness makes active, in numpy and in PyTorch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgekit.masks.threshold import REACH, active_cells, strongest_near
from edgekit.spec import DetectorSpec

SPEC = DetectorSpec(
    model="any", classes=("a",), height=320, width=320, anchors=(), mask_threshold=0.05, mask_halo=0.2, mask_grid=20
)


def around(strong: float, weak: float, distance: int) -> np.ndarray:
    objectness = np.zeros((20, 20), np.float32)
    objectness[10, 10], objectness[10, 10 + distance] = strong, weak
    return objectness


@pytest.mark.parametrize(("distance", "kept"), [(1, False), (REACH, False), (REACH + 1, True)])
def test_a_weak_cell_counts_only_away_from_a_strong_one(distance: int, kept: bool) -> None:
    mask = active_cells(around(0.9, 0.1, distance), SPEC)
    assert mask[10, 10]
    assert mask[10, 10 + distance] == kept


def test_near_a_doubtful_cell_the_threshold_is_the_ordinary_one() -> None:
    assert active_cells(around(0.4, 0.06, 1), SPEC).sum() == 2
    assert active_cells(around(0.4, 0.04, 1), SPEC).sum() == 1


def test_without_halo_every_cell_stands_for_itself() -> None:
    assert active_cells(around(1.0, 0.05, 1), replace(SPEC, mask_halo=0.0)).sum() == 2


def test_dilation_comes_last() -> None:
    assert active_cells(around(0.9, 0.1, 1), replace(SPEC, mask_dilation=1)).sum() == 9


def test_the_strongest_is_looked_for_in_a_square() -> None:
    values = np.random.default_rng(0).random((7, 9)).astype(np.float32)
    found = strongest_near(values)
    for row, column in ((0, 0), (3, 4), (6, 8)):
        window = values[max(0, row - REACH) : row + REACH + 1, max(0, column - REACH) : column + REACH + 1]
        assert found[row, column] == window.max()


@given(
    logits=arrays.arrays(np.float32, (20, 20), elements=st.floats(-12, 12, width=32)),
    threshold=st.sampled_from([0.0, 0.05, 0.5]),
    halo=st.sampled_from([0.0, 0.2, 1.0]),
    dilation=st.integers(0, 2),
)
def test_pytorch_says_the_same(logits: np.ndarray, threshold: float, halo: float, dilation: int) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    from edgekit.models.masked_detector import MaskedDetector

    spec = replace(SPEC, mask_threshold=threshold, mask_halo=halo, mask_dilation=dilation)
    model = MaskedDetector.__new__(MaskedDetector)
    torch.nn.Module.__init__(model)
    model.spec = spec
    tensor = torch.from_numpy(logits)[None, None]
    ours = model.binary_mask(tensor)[0, 0].bool().numpy()
    # Both round in float32, so cells that lie on the threshold to the last digit may differ.
    probability = torch.sigmoid(tensor)[0, 0].numpy()
    needed = np.maximum(threshold, halo * strongest_near(probability) ** 2)
    if np.abs(probability - needed).min() > 1e-6:
        assert np.array_equal(ours, active_cells(probability, spec))
