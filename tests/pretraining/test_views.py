"""Pixels of the views: each change does what it says, and all are drawn as often as they should be."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from edgekit.pretraining import views
from edgekit.pretraining.crops import Crop
from edgekit.pretraining.views import (
    FIRST,
    SECOND,
    blur,
    brighten,
    contrast,
    cut,
    grey,
    jitter,
    make_view,
    middle,
    saturate,
    turn_hue,
)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Smooth colours with some noise, [96, 128, 3]."""
    rng = np.random.default_rng(2)
    small = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(small).resize((128, 96), Image.Resampling.BICUBIC), np.int64)
    return (smooth + rng.integers(-8, 9, smooth.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.4])
@pytest.mark.parametrize(
    ("change", "reference", "tolerance"),
    [
        (brighten, ImageEnhance.Brightness, 1),
        (contrast, ImageEnhance.Contrast, 2),
        (saturate, ImageEnhance.Color, 2),
    ],
)
def test_light_changes_as_pillow_changes_it(
    picture: np.ndarray, factor: float, change: object, reference: type, tolerance: int
) -> None:
    wanted = np.asarray(reference(Image.fromarray(picture)).enhance(factor), np.int64)
    got = change(picture, factor).astype(np.int64)  # type: ignore[operator]
    assert np.abs(got - wanted).max() <= tolerance


def test_hues_turn_around_the_circle() -> None:
    red = np.full((4, 4, 3), (255, 0, 0), np.uint8)
    assert np.abs(turn_hue(red, 1 / 3).astype(int) - (0, 255, 0)).max() <= 6
    assert np.abs(turn_hue(red, -1 / 3).astype(int) - (0, 0, 255)).max() <= 6
    plain = np.full((4, 4, 3), 90, np.uint8)
    assert np.array_equal(turn_hue(plain, 0.1), plain)
    assert np.abs(turn_hue(red, 0.0).astype(int) - red).max() <= 1


def test_blur_takes_detail_and_leaves_the_mean(picture: np.ndarray) -> None:
    rough = [np.abs(np.diff(blur(picture, factor).astype(float), axis=1)).mean() for factor in (1.1, 1.5)]
    assert rough[1] < rough[0] < np.abs(np.diff(picture.astype(float), axis=1)).mean()
    assert blur(picture, 1.5).mean() == pytest.approx(picture.mean(), abs=0.5)


def test_a_cut_is_the_part_resized_and_mirrored(picture: np.ndarray) -> None:
    crop = Crop(top=8, left=16, height=64, width=64, mirrored=False)
    assert np.array_equal(cut(picture, crop, side=64), picture[8:72, 16:80])
    mirrored = Crop(top=8, left=16, height=64, width=64, mirrored=True)
    assert np.array_equal(cut(picture, mirrored, side=64), picture[8:72, 16:80][:, ::-1])
    wanted = Image.fromarray(picture[8:72, 16:80]).resize((32, 32), Image.Resampling.BICUBIC)
    assert np.array_equal(cut(picture, crop, side=32), np.asarray(wanted))


@pytest.mark.parametrize(("height", "width"), [(96, 128), (128, 96), (70, 70), (33, 500)])
def test_the_middle_of_any_picture_is_a_square(height: int, width: int) -> None:
    x = np.broadcast_to(np.linspace(0, 255, width), (height, width))
    view = middle(np.stack([x, x, x], axis=2).astype(np.uint8), side=64)
    assert view.shape == (64, 64, 3)
    assert view.mean() == pytest.approx(127, abs=3)


@pytest.mark.parametrize(("rule", "blurred", "solarised"), [(FIRST, 1.0, 0.0), (SECOND, 0.1, 0.2)])
def test_changes_come_as_often_as_the_recipe_says(
    monkeypatch: pytest.MonkeyPatch, rule: views.ViewRule, blurred: float, solarised: float
) -> None:
    done = {"jitter": 0, "blur": 0}

    def counting(name: str) -> object:
        def change(view: np.ndarray, *_: object) -> np.ndarray:
            done[name] += 1
            return view

        return change

    for name in done:
        monkeypatch.setattr(views, name, counting(name))
    # Blue alone: grey pictures have three equal channels, solarised ones 55 instead of 200.
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[..., 2] = 200
    crop = Crop(top=0, left=0, height=16, width=16, mirrored=False)
    rng = np.random.default_rng(0)
    made = [make_view(picture, crop, rng, rule, side=16)[0, 0].tolist() for _ in range(3000)]
    greyed = [pixel for pixel in made if pixel[0] == pixel[2]]
    assert done["jitter"] / 3000 == pytest.approx(0.8, abs=0.03)
    assert done["blur"] / 3000 == pytest.approx(blurred, abs=0.02)
    assert len(greyed) / 3000 == pytest.approx(0.2, abs=0.03)
    assert np.mean([pixel[2] == 55 for pixel in made if pixel not in greyed]) == pytest.approx(solarised, abs=0.03)


def test_jitter_changes_pictures_in_many_ways_but_not_their_shape(picture: np.ndarray) -> None:
    rng = np.random.default_rng(3)
    seen = [jitter(picture, rng) for _ in range(20)]
    assert {view.shape for view in seen} == {picture.shape}
    assert len({round(float(view.mean()), 1) for view in seen}) > 15
    assert np.mean([grey(view).mean() for view in seen]) == pytest.approx(grey(picture).mean(), rel=0.15)
