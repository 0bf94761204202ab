"""Crops lie in their picture and keep the rules; a box goes from the picture to both views and shows the same there."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.pretraining.crops import NARROWEST, WIDEST, Crop, draw_crop


@settings(max_examples=200, deadline=None)
@given(height=st.integers(1, 900), width=st.integers(1, 900), smallest=st.floats(0.05, 1.0), seed=st.integers(0, 2**32))
def test_crops_lie_in_their_picture(height: int, width: int, smallest: float, seed: int) -> None:
    crop = draw_crop(np.random.default_rng(seed), height=height, width=width, smallest=smallest)
    assert 0 <= crop.top < crop.bottom <= height
    assert 0 <= crop.left < crop.right <= width


def test_crops_have_every_allowed_shape_and_no_other() -> None:
    rng = np.random.default_rng(0)
    crops = [draw_crop(rng, height=240, width=320, smallest=0.2) for _ in range(2000)]
    shares = np.array([crop.height * crop.width / (240 * 320) for crop in crops])
    ratios = np.array([crop.width / crop.height for crop in crops])
    # Sides are whole pixels, which moves both a little.
    assert 0.195 < shares.min() < 0.22
    assert 0.95 < shares.max() <= 1
    assert ratios.min() == pytest.approx(NARROWEST, rel=0.02)
    assert ratios.max() == pytest.approx(WIDEST, rel=0.02)
    assert 0.45 < np.mean([crop.mirrored for crop in crops]) < 0.55
    # Uniform in the logarithm: as many upright as lying ones, but for large ones that do not fit.
    assert 0.3 < np.mean(ratios[shares < 0.5] < 1) < 0.6


@pytest.mark.parametrize(("height", "width"), [(20, 400), (400, 20)])
def test_of_a_long_picture_the_middle_is_taken(height: int, width: int) -> None:
    crop = draw_crop(np.random.default_rng(1), height=height, width=width, smallest=0.9)
    assert crop.width / crop.height == pytest.approx(WIDEST if width > height else NARROWEST, rel=0.05)
    assert min(crop.height, crop.width) == 20
    assert abs(crop.top + crop.bottom - height) <= 1
    assert abs(crop.left + crop.right - width) <= 1


def test_the_crop_itself_becomes_the_whole_view() -> None:
    for mirrored in (False, True):
        crop = Crop(top=10, left=20, height=50, width=100, mirrored=mirrored)
        assert crop.to_view(np.array([[20.0, 10, 120, 60]]), side=200).tolist() == [[0, 0, 200, 200]]


def test_a_box_is_moved_scaled_and_mirrored() -> None:
    box = np.array([[30.0, 10, 50, 35]])
    crop = Crop(top=10, left=20, height=50, width=100, mirrored=False)
    assert crop.to_view(box, side=200).tolist() == [[20, 0, 60, 100]]
    crop = Crop(top=10, left=20, height=50, width=100, mirrored=True)
    assert crop.to_view(box, side=200).tolist() == [[140, 0, 180, 100]]
    assert math.prod(crop.to_view(box, side=200)[0, 2:] - crop.to_view(box, side=200)[0, :2]) > 0
