"""Two views of a picture: cut out, mirrored, changed in colour, blurred, one of them sometimes solarised.

The recipe is BYOL's (arXiv 2006.07733, appendix B) as SCRL's program has it (https://github.com/kakaobrain/scrl,
``augment/``): crops of at least a fifth of the area, bicubic; colours jittered in four of five views, grey in one of
five; the first view always blurred, the second in one of ten; the second solarised in one of five. Blur is a reduction
by 1.1, 1.2 or 1.5 and back, which costs less than a Gaussian one.

A picture is [h, w, 3] RGB uint8. Every function takes the sample's own generator, so a sample depends on
(seed, epoch, index) alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgekit.pretraining.crops import Crop

Picture = NDArray[np.uint8]

JITTERED, GREYED, SOLARISED_FROM = 0.8, 0.2, 128
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.4, 0.4, 0.2, 0.1
"""Factors are drawn from 1 - x to 1 + x; hue turns by up to a tenth of the circle."""

LEVELS = np.arange(256, dtype=np.float64)
"""Every value that a pixel can have."""

REDUCTIONS = (1.1, 1.2, 1.5)
"""Of the sides, when a view is blurred."""

ROOM = 256 / 224
"""Evaluation: the shorter side, over that of the square that is cut out of its middle."""


@dataclass(frozen=True, kw_only=True)
class ViewRule:
    """What the two views are drawn differently by."""

    blurred: float
    """Share of the views, 0..1."""

    solarised: float
    """Share of the views, 0..1."""


FIRST, SECOND = ViewRule(blurred=1.0, solarised=0.0), ViewRule(blurred=0.1, solarised=0.2)


def make_view(picture: Picture, crop: Crop, rng: np.random.Generator, rule: ViewRule, *, side: int) -> Picture:
    """``crop`` of ``picture`` as a view [side, side, 3]."""
    view = cut(picture, crop, side=side)
    if rng.random() < JITTERED:
        view = jitter(view, rng)
    if rng.random() < GREYED:
        view = np.repeat(grey(view)[..., None], 3, axis=2)
    if rng.random() < rule.blurred:
        view = blur(view, REDUCTIONS[int(rng.integers(len(REDUCTIONS)))])
    if rng.random() < rule.solarised:
        view = np.where(view < SOLARISED_FROM, view, 255 - view).astype(np.uint8)
    return np.ascontiguousarray(view)


def cut(picture: Picture, crop: Crop, *, side: int) -> Picture:
    """The crop's pixels in another size, bicubic and without aliasing, mirrored where it says so."""
    part = np.ascontiguousarray(picture[crop.top : crop.bottom, crop.left : crop.right])
    view = resized(part, height=side, width=side)
    return view[:, ::-1] if crop.mirrored else view


def middle(picture: Picture, *, side: int) -> Picture:
    """The view of evaluation: the shorter side made 256/224 of ``side``, and the middle [side, side, 3] of that."""
    height, width = picture.shape[:2]
    factor = round(side * ROOM) / min(height, width)
    view = resized(picture, height=max(side, round(height * factor)), width=max(side, round(width * factor)))
    top, left = (view.shape[0] - side) // 2, (view.shape[1] - side) // 2
    return np.ascontiguousarray(view[top : top + side, left : left + side])


def resized(picture: Picture, *, height: int, width: int) -> Picture:
    """Pillow's bicubic: it averages over what it reduces."""
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC), np.uint8)


def jitter(view: Picture, rng: np.random.Generator) -> Picture:
    """Brightness, contrast, saturation and hue by random amounts, in a random order."""
    amounts = [rng.uniform(1 - x, 1 + x) for x in (BRIGHTNESS, CONTRAST, SATURATION)]
    turn = rng.uniform(-HUE, HUE)
    changes: list[Callable[[Picture], Picture]] = [
        lambda picture: brighten(picture, amounts[0]),
        lambda picture: contrast(picture, amounts[1]),
        lambda picture: saturate(picture, amounts[2]),
        lambda picture: turn_hue(picture, turn),
    ]
    for index in rng.permutation(len(changes)):
        view = changes[int(index)](view)
    return view


def brighten(picture: Picture, factor: float) -> Picture:
    """Every value times ``factor``."""
    return _by_table(picture, LEVELS * factor)


def contrast(picture: Picture, factor: float) -> Picture:
    """Every value's distance from the mean grey times ``factor``."""
    centre = float(round(float(grey(picture).mean())))
    return _by_table(picture, centre + (LEVELS - centre) * factor)


def saturate(picture: Picture, factor: float) -> Picture:
    """Every colour's distance from its own grey times ``factor``."""
    plain = np.repeat(grey(picture)[..., None], 3, axis=2)
    return np.asarray(cv2.addWeighted(np.ascontiguousarray(picture), factor, plain, 1 - factor, 0), np.uint8)


def turn_hue(picture: Picture, share: float) -> Picture:
    """Turn all hues by ``share`` of the circle."""
    hsv = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(share * 256) % 256)  # wraps around, as hues do
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL), np.uint8)


def grey(picture: Picture) -> Picture:
    """[h, w]: the luma of ITU-R BT.601."""
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY), np.uint8)


def blur(view: Picture, reduction: float) -> Picture:
    """What is left when the view is made smaller by ``reduction`` and large again."""
    height, width = view.shape[:2]
    small = resized(
        np.ascontiguousarray(view), height=max(1, int(height / reduction)), width=max(1, int(width / reduction))
    )
    return resized(small, height=height, width=width)


def _by_table(picture: Picture, values: NDArray[np.float64]) -> Picture:
    return np.asarray(cv2.LUT(np.ascontiguousarray(picture), values.round().clip(0, 255).astype(np.uint8)), np.uint8)
