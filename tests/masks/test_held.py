"""Cells that stay active for some frames, alone and with masks that are kept."""

import numpy as np
import pytest

from edgekit.data.letterbox import letterbox
from edgekit.masks.reuse import Held, on_video
from edgekit.masks.sources import MaskInput
from edgekit.models.registry import find_model

SPEC = find_model("mobilenetv2-ssdlite-omg").spec(("cat",), 320, 320)
FRAME = MaskInput(
    letterboxed=letterbox(np.full((320, 320, 3), 100, np.uint8), height=320, width=320),
    spec=SPEC,
    objectness=lambda: np.zeros((20, 20), np.float32),
)


class Script:
    """A mask source that wants one column after another, then nothing."""

    def __init__(self, columns):
        self.columns, self.asked = list(columns), 0

    def __call__(self, frame):
        mask = np.zeros((20, 20), np.bool_)
        if self.asked < len(self.columns):
            mask[:, self.columns[self.asked]] = True
        self.asked += 1
        return mask


def columns(mask):
    assert (mask == mask[0]).all()
    return np.flatnonzero(mask[0]).tolist()


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (0, [[3], [4], [3], [], [], []]),
        (1, [[3], [3, 4], [3, 4], [3], [], []]),
        (2, [[3], [3, 4], [3, 4], [3, 4], [3], []]),
    ],
)
def test_a_cell_stays_for_so_many_frames(frames, expected):
    held = Held(Script([3, 4, 3]), frames=frames)
    assert [columns(held(FRAME)) for _ in range(6)] == expected


def test_frames_count_where_a_mask_is_kept_too():
    source = Script([3])
    mask = on_video(source, every=2, hold=1)
    assert [columns(mask(FRAME)) for _ in range(5)] == [[3], [3], [3], [], []]
    assert source.asked == 3


def test_without_either_it_is_the_source_itself():
    source = Script([])
    assert on_video(source, every=1, hold=0) is source


def test_a_mask_is_nobody_elses():
    held = Held(Script([3]), frames=5)
    held(FRAME)[:] = True
    assert columns(held(FRAME)) == [3]


def test_a_negative_number_is_refused():
    with pytest.raises(ValueError, match="for no frames or some, got -1"):
        Held(Script([]), frames=-1)
