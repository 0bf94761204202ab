"""The threshold that follows the frame's best cell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit.data.letterbox import letterbox
from edgekit.masks.pyramid import Mask
from edgekit.masks.sources import MaskInput, omg
from edgekit.masks.threshold import LEAST, frame_threshold
from edgekit.models.masked_detector import MaskedDetector
from edgekit.models.registry import find_model
from edgekit.spec import DetectorSpec

SPEC = DetectorSpec(
    model="m", classes=("a",), height=80, width=80, anchors=(), mask_threshold=0.2, mask_threshold_exponent=12
)


def runtime_mask(objectness: NDArray[np.float32], spec: DetectorSpec) -> Mask:
    picture = letterbox(np.zeros((64, 64, 3), np.uint8), height=64, width=64)
    return omg(MaskInput(letterboxed=picture, spec=spec, objectness=lambda: objectness))


def test_a_sure_frame_has_the_whole_threshold() -> None:
    assert frame_threshold(1.0, SPEC) == pytest.approx(0.2)


def test_an_unsure_frame_has_less_but_never_under_a_quarter() -> None:
    assert frame_threshold(0.95, SPEC) == pytest.approx(0.2 * 0.95**12)
    assert frame_threshold(0.1, SPEC) == frame_threshold(0.0, SPEC) == pytest.approx(0.2 * LEAST)


@given(best=st.floats(0, 1))
def test_exponent_0_is_one_threshold_for_all(best: float) -> None:
    assert frame_threshold(best, replace(SPEC, mask_threshold_exponent=0)) == pytest.approx(0.2)


@given(low=st.floats(0, 1), high=st.floats(0, 1), exponent=st.floats(0, 100))
def test_a_surer_frame_never_has_a_lower_threshold(low: float, high: float, exponent: float) -> None:
    spec = replace(SPEC, mask_threshold_exponent=exponent)
    low, high = sorted((low, high))
    assert 0.2 * LEAST <= frame_threshold(low, spec) <= frame_threshold(high, spec) <= 0.2


def test_the_detector_trains_under_the_masks_that_it_runs_under() -> None:
    """Each picture of a batch has its own threshold, the one that the runtime gives it."""
    model = MaskedDetector(find_model("mobilenetv2-ssdlite-omg").spec(("a",), 64, 64))
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([1.0, 2.0, 4.0])[:, None, None, None]
    logits = spread * torch.randn(3, 1, 4, 4, generator=generator) - 1
    masks = model.binary_mask(logits)
    for index in range(3):
        expected = runtime_mask(torch.sigmoid(logits[index, 0]).numpy(), model.spec)
        np.testing.assert_array_equal(masks[index, 0].numpy().astype(bool), expected)
    thresholds = {frame_threshold(float(torch.sigmoid(logits[index]).max()), model.spec) for index in range(3)}
    assert len(thresholds) == 3
