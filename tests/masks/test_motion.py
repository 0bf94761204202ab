"""The background model: what it sees, and what it must not see."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from edgekit.data.letterbox import letterbox
from edgekit.masks.motion import MEMORY_S, Motion
from edgekit.masks.sources import MaskInput
from edgekit.models.registry import find_model

SPEC = find_model("mobilenetv2-ssdlite-omg").spec(("cat",), 320, 320)
STEP_S = 0.1


def scene(seed=0, height=240, width=320):
    """A still background with structure: blocks of grey levels from 40 to 180."""
    blocks = np.random.default_rng(seed).integers(40, 181, (height // 8, width // 8), np.uint8)
    return np.repeat(np.repeat(blocks, 8, 0), 8, 1)[..., None].repeat(3, 2)


def person(picture, left, top, grey=250, height=40, width=16):
    picture = picture.copy()
    picture[top : top + height, left : left + width] = grey
    return picture


@functools.cache
def noises(deviation, shape):
    """Seven frames of noise: enough for no point to have the same for long, and quick."""
    return np.random.default_rng(1).normal(0, deviation, (7, *shape)).astype(np.float32)


class Camera:
    """Gives frames of its own clock to one motion mask."""

    def __init__(self, noise=2.0):
        self.motion, self.now_s, self.frames, self.noise = Motion(), 0.0, 0, noise

    def see(self, picture, step_s=STEP_S):
        self.now_s += step_s
        self.frames += 1
        noise = noises(self.noise, picture.shape)[self.frames % 7]
        noisy = np.clip(picture + noise, 0, 255).astype(np.uint8)
        return self.motion(
            MaskInput(
                letterboxed=letterbox(noisy, height=320, width=320),
                spec=SPEC,
                objectness=lambda: pytest.fail("motion needs no network"),
                time_s=self.now_s,
            )
        )

    def look(self, picture, frames, step_s=STEP_S):
        """Several frames of the same picture; the last mask."""
        for _ in range(frames):
            mask = self.see(picture, step_s)
        return mask


def inside(mask, left, top, height=40, width=16):
    """Whether every cell that a person touches is active; the picture of 320 x 240 begins 40 pixels further down."""
    return mask[(top + 40) // 16 : -(-(top + 40 + height) // 16), left // 16 : -(-(left + width) // 16)].all()


def test_a_first_frame_is_all_of_the_picture_but_no_padding():
    mask = Camera().see(scene())
    assert mask[3:17].all()
    assert not mask[:2].any()
    assert not mask[18:].any()


def test_nothing_moves_in_a_still_scene():
    camera = Camera()
    camera.see(scene())
    assert max(camera.see(scene()).mean() for _ in range(50)) == 0


@pytest.mark.parametrize("step_s", [1 / 30, 0.1, 0.5])
def test_who_walks_is_seen_with_the_cells_around(step_s):
    camera = Camera()
    camera.look(scene(), 10, step_s)
    for left in range(20, 280, 8):
        mask = camera.see(person(scene(), left, 100), step_s)
        assert inside(mask, left, 100)
        assert mask.mean() < 0.1  # and no trail


def test_somebody_small_and_pale_is_seen():
    camera = Camera()
    flat = np.full_like(scene(), 100)
    camera.look(flat, 10)
    assert inside(camera.see(person(flat, 160, 100, grey=125, height=14, width=6)), 160, 100, 14, 6)


def test_who_stands_becomes_background_late():
    camera = Camera()
    camera.look(scene(), 60, step_s=1)
    standing = person(scene(), 160, 100)
    assert inside(camera.look(standing, round(0.5 * MEMORY_S), step_s=1), 160, 100)
    assert not camera.look(standing, round(6 * MEMORY_S), step_s=1).any()


def test_how_long_that_takes_depends_on_seconds_not_on_frames():
    standing, taken_s = person(scene(), 160, 100), []
    for step_s in (0.5, 2.0):
        camera = Camera(noise=0)
        camera.look(scene(), round(2 * MEMORY_S / step_s), step_s)
        taken_s.append(step_s * next(n for n in range(1000) if not camera.see(standing, step_s).any()))
    assert taken_s[0] == pytest.approx(taken_s[1], rel=0.1)


def test_who_was_there_from_the_beginning_leaves_no_ghost_for_ever():
    camera = Camera()
    camera.look(person(scene(), 160, 100), 3)
    assert inside(camera.see(scene()), 160, 100)
    assert not camera.look(scene(), round(6 * MEMORY_S), step_s=1).any()


@pytest.mark.parametrize("gain", [0.7, 0.85, 1.2, 1.35])
def test_light_that_changes_as_a_whole_is_no_motion(gain):
    camera = Camera()
    camera.look(scene(), 30)
    brighter = np.clip(scene() * gain, 0, 255)
    assert camera.see(brighter).mean() < 0.02
    assert camera.look(brighter, 20).mean() == 0
    walking = person(brighter, 160, 100, grey=250 if gain < 1 else 5)
    assert inside(camera.see(walking), 160, 100)


def test_a_lamp_goes_on_once():
    camera = Camera()
    camera.look(np.full_like(scene(), 60), 30)
    lit = scene(seed=5)
    mask = camera.see(lit)
    assert mask[3:17].all()  # everything is new
    assert camera.see(lit).mean() == 0  # and known


@pytest.mark.parametrize(("down", "right"), [(2, 0), (0, 2), (-2, 2)])
def test_a_camera_that_shakes_a_little_sees_no_motion(down, right):
    camera = Camera()
    wide = scene(height=256, width=336)
    straight, shaken = wide[8:248, 8:328], wide[8 + down : 248 + down, 8 + right : 328 + right]
    camera.look(straight, 30)
    assert max(camera.see(shaken if n % 2 else straight).mean() for n in range(20)) < 0.02


def test_what_flickers_is_known_after_a_while_but_hides_nobody():
    camera, dark = Camera(), np.full_like(scene(), 100)
    random = np.random.default_rng(3)
    for _ in range(300):
        leaves = dark.copy()
        leaves[60:120, 100:160] += random.integers(0, 25, (8, 8, 1), np.uint8).repeat(8, 0).repeat(8, 1)[:60, :60]
        mask = camera.see(leaves)
    assert mask.mean() < 0.02
    assert inside(camera.see(person(leaves, 120, 70, grey=250)), 120, 70)


def test_noise_is_no_motion():
    camera = Camera(noise=12.0)
    camera.see(scene())
    assert max(camera.see(scene()).mean() for _ in range(50)) < 0.01


def test_another_resolution_begins_anew():
    camera = Camera()
    camera.look(scene(), 10)
    assert camera.see(scene(height=320, width=320)).all()
    assert camera.see(scene(height=320, width=320)).mean() == 0


@pytest.mark.parametrize("jump_s", [-100.0, 0.0, 1e6])
def test_a_clock_that_jumps_does_no_harm(jump_s):
    camera = Camera()
    camera.look(scene(), 20)
    camera.see(scene(), jump_s)
    assert inside(camera.see(person(scene(), 160, 100)), 160, 100)
    assert np.isfinite(camera.motion._background).all()


def test_without_a_clock_and_with_masks_that_are_changed_by_their_user():
    motion = Motion()
    frame = MaskInput(letterboxed=letterbox(scene(), height=320, width=320), spec=SPEC, objectness=lambda: None)
    motion(frame)[:] = False
    for _ in range(3):
        motion(frame)[:] = True
    assert not motion(frame).any()
    assert Motion()(frame)[3:17].all()
