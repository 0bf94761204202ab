"""A mask that is kept: how long, and what ends it."""

import numpy as np
import pytest

from edgekit.data.letterbox import letterbox
from edgekit.masks.reuse import Reused
from edgekit.masks.sources import MaskInput
from edgekit.models.registry import find_model

SPEC = find_model("mobilenetv2-ssdlite-omg").spec(("cat",), 320, 320)


class Counting:
    """A mask source of the upper left quarter that says how often it was asked."""

    def __init__(self):
        self.asked = 0

    def __call__(self, frame):
        self.asked += 1
        mask = np.zeros((20, 20), np.bool_)
        mask[:10, :10] = True
        return mask


def frame(picture):
    return MaskInput(
        letterboxed=letterbox(picture, height=320, width=320),
        spec=SPEC,
        objectness=lambda: np.zeros((20, 20), np.float32),
    )


def still(grey=100):
    return np.full((320, 320, 3), grey, np.uint8)


def with_square(row, column, side=32, grey=200):
    picture = still()
    picture[row : row + side, column : column + side] = grey
    return picture


@pytest.mark.parametrize(("every", "asked"), [(1, 10), (2, 5), (3, 4), (100, 1)])
def test_a_still_scene_is_asked_for_every_so_often(every, asked):
    source = Counting()
    reused = Reused(source, every=every)
    masks = [reused(frame(still())) for _ in range(10)]
    assert source.asked == asked
    assert all(mask[:10, :10].all() and mask.sum() == 100 for mask in masks)


def test_movement_in_the_background_ends_it():
    source = Counting()
    reused = Reused(source, every=100)
    reused(frame(still()))
    reused(frame(with_square(240, 240)))
    assert source.asked == 2
    reused(frame(with_square(240, 240)))  # it stands there now
    assert source.asked == 2
    reused(frame(still()))  # and leaves
    assert source.asked == 3


def test_movement_where_the_detector_looks_anyway_does_not():
    source = Counting()
    reused = Reused(source, every=100)
    for column in range(0, 120, 8):
        reused(frame(with_square(40, column)))
    assert source.asked == 1


def test_noise_does_not():
    source = Counting()
    reused = Reused(source, every=100)
    random = np.random.default_rng(0)
    for _ in range(10):
        reused(frame((still() + random.integers(-20, 21, (320, 320, 3))).astype(np.uint8)))
    assert source.asked == 1


def test_a_mask_that_is_changed_by_its_user_is_kept_as_it_was():
    reused = Reused(Counting(), every=100)
    reused(frame(still()))[:] = True
    assert reused(frame(still())).sum() == 100


def test_it_lasts_at_least_one_frame():
    with pytest.raises(ValueError, match="at least one frame"):
        Reused(Counting(), every=0)
