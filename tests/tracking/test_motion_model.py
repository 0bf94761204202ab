"""The Kalman filter: held against one of eight by eight, and time that adds up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.tracking.motion_model import ACCELERATION, DRIFT, FIRST_VELOCITY, MEASUREMENT, Motion

SIDES = st.floats(4, 400)
BOXES = st.tuples(st.floats(0, 1000), st.floats(0, 1000), SIDES, SIDES).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)
SECONDS = st.floats(0.001, 3)


@settings(deadline=None)
@given(BOXES, BOXES, SECONDS, SECONDS)
def test_two_short_steps_are_one_long_one(first, second, one, other):
    motion = Motion.of(first).after(0.1).seen(second)
    twice, once = motion.after(one).after(other), motion.after(one + other)
    np.testing.assert_allclose([*twice.x, *twice.y], [*once.x, *once.y], rtol=1e-9, atol=1e-9)


class Whole:
    """The same model as every textbook writes it: x, y, w, h and the velocities of x and y in one state."""

    def __init__(self, box):
        left, top, right, bottom = box
        self.state = np.array([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top, 0, 0])
        unit = self.unit()
        noise = MEASUREMENT**2 * unit
        self.covariance = np.diag([noise] * 4 + [FIRST_VELOCITY**2 * unit] * 2)

    def unit(self):
        return max(np.sqrt(self.state[2] * self.state[3]), 1) ** 2

    def after(self, seconds):
        step = np.eye(6)
        step[0, 4] = step[1, 5] = seconds
        noise = np.diag([DRIFT * seconds] * 4 + [ACCELERATION * seconds] * 2)
        for place, velocity in ((0, 4), (1, 5)):
            noise[place, place] += ACCELERATION * seconds**3 / 3
            noise[place, velocity] = noise[velocity, place] = ACCELERATION * seconds**2 / 2
        self.covariance = step @ self.covariance @ step.T + noise * self.unit()
        self.state = step @ self.state

    def correct(self, box):
        measured = Whole(box)
        seen = np.eye(4, 6)
        noise = MEASUREMENT**2 * measured.unit() * np.eye(4)
        gain = self.covariance @ seen.T @ np.linalg.inv(seen @ self.covariance @ seen.T + noise)
        self.state = self.state + gain @ (measured.state[:4] - self.state[:4])
        self.covariance = (np.eye(6) - gain @ seen) @ self.covariance


@settings(deadline=None)
@given(BOXES, st.lists(st.tuples(BOXES, SECONDS), min_size=1, max_size=6))
def test_it_is_the_filter_of_textbooks(first, steps):
    motion, whole = Motion.of(first), Whole(first)
    for box, seconds in steps:
        motion = motion.after(seconds).seen(box)
        whole.after(seconds)
        whole.correct(box)
    x, y = motion
    ours = [x.centre, y.centre, x.side, y.side, x.velocity, y.velocity]
    np.testing.assert_allclose(ours, whole.state, rtol=1e-6, atol=1e-6)
    ours = [x.centre_variance, y.centre_variance, x.side_variance, y.side_variance]
    np.testing.assert_allclose(ours, np.diag(whole.covariance)[:4], rtol=1e-6)
    np.testing.assert_allclose([x.velocity_variance, y.velocity_variance], np.diag(whole.covariance)[4:], rtol=1e-6)


@pytest.mark.parametrize("steps_s", [[0.1] * 20, [0.05, 0.4, 0.1, 0.2, 0.05, 0.6, 0.1, 0.3]])
def test_it_learns_a_steady_velocity_whatever_the_steps_are(steps_s):
    motion, now_s = Motion.of((100, 100, 140, 200)), 0.0
    for step_s in steps_s:
        now_s += step_s
        across, down = 50 * now_s, -20 * now_s
        motion = motion.after(step_s).seen((100 + across, 100 + down, 140 + across, 200 + down))
    np.testing.assert_allclose([motion.x.velocity, motion.y.velocity], [50, -20], atol=3)
    later = motion.after(1)
    expected = [120 + 50 * (now_s + 1), 150 - 20 * (now_s + 1)]
    np.testing.assert_allclose([later.x.centre, later.y.centre], expected, atol=5)


def test_a_box_comes_back_as_it_was():
    box = (1.5, 2.0, 30.0, 47.25)
    assert Motion.of(box).box() == pytest.approx(box)
