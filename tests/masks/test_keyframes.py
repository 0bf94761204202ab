"""Keyframes: when they come, what they look at, and what is not missed twice."""

from __future__ import annotations

import time

import numpy as np
import pytest

from edgekit.data.letterbox import letterbox
from edgekit.detections import Detections
from edgekit.masks.keyframes import QUICKEST, Keyframes
from edgekit.masks.reuse import Held, Reused, video_mask
from edgekit.masks.sources import MaskInput, off
from edgekit.models.registry import find_model

SPEC = find_model("mobilenetv2-ssdlite-omg").spec(("cat",), 320, 320)
STANDING, PASSING = [160, 160, 192, 224], [0, 0, 32, 32]  # input pixels of a picture without padding; 16 a cell


def nothing(frame):
    return np.zeros(SPEC.mask_grid, np.bool_)


def upper_left(frame):
    mask = nothing(frame)
    mask[:3, :3] = True
    return mask


class Camera:
    """Frames of one camera through one mask; what a frame finds is what its mask keeps of ``objects``."""

    def __init__(self, mask, *, step_s=0.1, side=320):
        self.mask, self.step_s, self.side, self.previous, self.index = mask, step_s, side, None, 0

    def see(self, objects=(), *, score=0.9, objectness=None):
        """The mask of the next frame, in which ``objects`` are."""
        frame = MaskInput(
            letterboxed=letterbox(np.full((self.side, self.side, 3), 90, np.uint8), height=320, width=320),
            spec=SPEC,
            objectness=objectness or (lambda: np.zeros(SPEC.mask_grid, np.float32)),
            previous=self.previous,
            time_s=self.index * self.step_s,
        )
        mask = self.mask(frame)
        self.index += 1
        found = [box for box in objects if mask[box[1] // 16 : box[3] // 16, box[0] // 16 : box[2] // 16].all()]
        self.previous = Detections(
            boxes_xyxy=np.array(found, np.float32).reshape(-1, 4) * (self.side / 320),
            scores=np.full(len(found), score, np.float32),
            class_ids=np.zeros(len(found), np.int64),
        )
        return mask

    def whole_frames(self, frames, objects=()):
        """The numbers of those of the next ``frames`` in which everything is looked at."""
        start = self.index
        return [start + n for n in range(frames) if self.see(objects).all()]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"frames": 4}, [0, 4, 8]),
        ({"frames": 1}, list(range(12))),
        ({"seconds": 0.5}, [0, 5, 10]),
        ({"seconds": 0.5, "frames": 3}, [0, 3, 6, 9]),
        ({"seconds": 0.2, "frames": 3}, [0, 2, 4, 6, 8, 10]),
        ({"seconds": 60}, [0]),
    ],
)
def test_a_keyframe_every_so_often(arguments, expected):
    assert Camera(Keyframes(nothing, off, **arguments), step_s=0.1001).whole_frames(12) == expected


def test_between_them_it_is_the_cheap_mask():
    camera = Camera(Keyframes(upper_left, off, frames=3))
    assert [int(camera.see().sum()) for _ in range(4)] == [400, 9, 9, 400]


def test_frames_that_were_dropped_count_as_time():
    camera = Camera(Keyframes(nothing, off, seconds=2), step_s=1.5)
    assert camera.whole_frames(7) == [0, 2, 4, 6]


def test_a_clock_that_begins_again_is_a_keyframe():
    camera = Camera(Keyframes(nothing, off, seconds=5))
    camera.index = 70
    assert camera.whole_frames(8) == [70]
    camera.index = 0
    assert camera.whole_frames(8) == [0]


def test_without_a_clock_it_is_the_real_time():
    mask = Keyframes(nothing, off, seconds=0.05)
    frame = MaskInput(
        letterboxed=letterbox(np.zeros((320, 320, 3), np.uint8), height=320, width=320),
        spec=SPEC,
        objectness=lambda: np.zeros(SPEC.mask_grid, np.float32),
    )
    begin = time.monotonic()
    assert mask(frame).all()
    count = 1
    while not mask(frame).all():
        count += 1
    assert time.monotonic() - begin >= 0.05
    assert count > 1


def test_what_only_a_keyframe_finds_stays_visible_as_long_as_keyframes_find_it():
    camera = Camera(Keyframes(nothing, off, frames=10))
    camera.see([STANDING])
    masks = [camera.see([STANDING]) for _ in range(30)]
    assert all(mask[10:14, 10:12].all() for mask in masks)
    usual = [mask for mask in masks if not mask.all()]
    assert {int(mask.sum()) for mask in usual} == {(4 + 2) * (2 + 2)}  # its cells, and half a cell around
    camera.whole_frames(10)  # it is gone; the next keyframe lets go of its cells
    assert not camera.see().any()


def test_what_is_new_there_makes_keyframes_quicker_and_they_relax_again():
    mask = Keyframes(nothing, off, frames=16)
    camera = Camera(mask)
    assert camera.whole_frames(33) == [0, 16, 32]
    camera.see([STANDING])
    assert mask.pace == 1
    assert camera.whole_frames(15, [STANDING]) == [48]
    assert camera.whole_frames(60, [STANDING])[:3] == [56, 66, 78]  # a half, then five quarters of it each time
    camera.whole_frames(30, [STANDING])
    assert mask.pace == 1  # it still stands there, and is known


def test_the_interval_has_a_shortest():
    mask = Keyframes(nothing, off, frames=16)
    camera, paces = Camera(mask), []
    for n in range(200):
        x = 32 * (n // 4 % 9)  # every four frames somebody else, somewhere else
        camera.see([[x, 0, x + 16, 16]])
        paces.append(mask.pace)
    assert min(paces) == QUICKEST


def test_a_false_alarm_is_neither_kept_nor_reason_to_hurry():
    mask = Keyframes(nothing, off, frames=8)
    camera = Camera(mask)
    for keyframe in range(5):
        x = 48 * keyframe
        assert camera.see([[x, 0, x + 16, 16]]).all()  # seen in the keyframe alone
        assert camera.see()[0, x // 16]  # looked at again, and there is nothing
        assert not any(camera.see().any() for _ in range(6))
    assert mask.pace == 1


def test_what_the_cheap_mask_sees_by_itself_costs_nothing():
    mask = Keyframes(upper_left, off, frames=5)
    camera = Camera(mask)
    sums = [int(camera.see([PASSING]).sum()) for _ in range(12)]
    assert sums == [400, 9, 9, 9, 9, 400, 9, 9, 9, 9, 400, 9]
    assert mask.pace == 1


def test_unlikely_detections_of_an_evaluation_are_not_missed():
    mask = Keyframes(nothing, off, frames=5)
    camera = Camera(mask)
    camera.see([STANDING], score=SPEC.score_threshold / 2)
    assert not camera.see().any()
    assert mask.pace == 1


def test_pictures_of_any_size():
    camera = Camera(Keyframes(nothing, off, frames=10), side=640)
    camera.see([STANDING])
    assert camera.see([STANDING])[10:14, 10:12].all()
    camera = Camera(Keyframes(nothing, off, frames=10), side=640)
    camera.see([STANDING])
    camera.side = 160  # the camera came back with another resolution, in which the box is somewhere else
    assert not camera.see([STANDING]).any()


def test_the_cheap_mask_is_asked_in_every_frame():
    asked = []

    def cheap(frame):
        asked.append(frame.time_s)
        return nothing(frame)

    Camera(Keyframes(cheap, off, frames=2)).whole_frames(6)
    assert len(asked) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "need a number of seconds or of frames"),
        ({"seconds": 0}, "got 0 s and None frames"),
        ({"seconds": float("nan")}, "got nan s"),
        ({"frames": 0}, "got None s and 0 frames"),
    ],
)
def test_intervals_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        Keyframes(nothing, off, **arguments)


def test_the_omg_network_runs_in_keyframes_only():
    calls = set()

    def objectness():
        calls.add(camera.index)
        values = np.zeros(SPEC.mask_grid, np.float32)
        values[10:14, 10:12] = 0.9
        return values

    camera = Camera(video_mask("omg & motion", SPEC, keyframe_frames=4))
    masks = [camera.see([STANDING], objectness=objectness) for _ in range(12)]
    assert calls == {0, 4, 8}  # motion is nothing in between, so that the network is not asked
    assert all(mask[10:14, 10:12].all() for mask in masks)  # who stands there from the beginning is not missed
    assert max(int(mask.sum()) for mask in masks) < 40


def test_of_a_mask_for_video_all_parts_may_be_chosen():
    assert video_mask("off", SPEC) is off
    assert isinstance(video_mask("omg", SPEC, every=5), Reused)
    assert isinstance(video_mask("omg", SPEC, every=5, hold=2), Held)
    camera = Camera(video_mask("omg", SPEC, every=5, hold=2, keyframe_s=0.45))
    assert camera.whole_frames(12) == [0, 5, 10]
    assert Camera(video_mask("motion | tracks", SPEC, keyframe_frames=6)).whole_frames(12) == [0, 6]
