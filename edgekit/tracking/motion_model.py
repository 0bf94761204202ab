"""Where an object will be: a Kalman filter of constant velocity for a box, in real time.

ByteTrack (arXiv 2110.06864, section 3) predicts with the filter of DeepSORT (arXiv 1703.07402, section 2.1): position
and size, each with a velocity, one step a frame. Here

* steps are seconds, because a live source leaves out the frames for which there was no time. Noise grows with time so
  that two short steps are exactly one long one. The constants are DeepSORT's at 30 frames a second.
* width and height have no velocity: in a gap they would grow without bounds.
* no coordinate says anything about another (the filter of DeepSORT starts like this, and nothing in it ever mixes
  them), so an 8x8 covariance is four numbers an axis.

Plain numbers: a camera follows a few objects, and between two frames of a detector a call of numpy takes longer than
all that it would compute for them.
"""

from __future__ import annotations

from typing import NamedTuple, Self

Box = tuple[float, float, float, float]
"""xyxy in pixels."""

MEASUREMENT = 0.05
"""Standard deviation of a measured centre or side, in units of the box's scale (the root of its area)."""

DRIFT = 0.075
"""Variance that a centre or side gains in a second by itself: 30 times (1/20)^2."""

ACCELERATION = 1.0
"""Variance that a velocity (scales a second) gains in a second: 30 times (30/160)^2."""

FIRST_VELOCITY = 2.0
"""Standard deviation of the velocity of something new, in scales a second: a runner's."""


class Axis(NamedTuple):
    """What is believed of a box along one axis: x and width, or y and height. Pixels and seconds."""

    centre: float
    side: float
    velocity: float
    centre_variance: float
    covariance: float
    """Of centre and velocity."""

    velocity_variance: float
    side_variance: float

    def after(self, seconds: float, unit: float) -> Axis:
        """What is to be expected in ``seconds``; ``unit`` is that of the box."""
        centre, side, velocity, centre_variance, covariance, velocity_variance, side_variance = self
        drift, faster = unit * DRIFT * seconds, unit * ACCELERATION * seconds
        return Axis(
            centre + seconds * velocity,
            side,
            velocity,
            centre_variance + seconds * (2 * covariance + seconds * (velocity_variance + faster / 3)) + drift,
            covariance + seconds * (velocity_variance + faster / 2),
            velocity_variance + faster,
            side_variance + drift,
        )

    def seen(self, seen_centre: float, seen_side: float, noise: float) -> Axis:
        """A Kalman filter's update, where centre and side are measured with a variance of ``noise``."""
        centre, side, velocity, centre_variance, covariance, velocity_variance, side_variance = self
        centre_gain, velocity_gain = centre_variance / (centre_variance + noise), covariance / (centre_variance + noise)
        side_gain = side_variance / (side_variance + noise)
        surprise = seen_centre - centre
        return Axis(
            centre + centre_gain * surprise,
            side + side_gain * (seen_side - side),
            velocity + velocity_gain * surprise,
            centre_variance * (1 - centre_gain),
            covariance * (1 - centre_gain),
            velocity_variance - velocity_gain * covariance,
            side_variance * (1 - side_gain),
        )


class Motion(NamedTuple):
    """What is believed of a box."""

    x: Axis
    y: Axis

    @classmethod
    def of(cls, box: Box) -> Self:
        """A box that was seen for the first time."""
        x, y, width, height = _centre_and_sides(box)
        unit = _unit(width, height)
        noise, speed = MEASUREMENT**2 * unit, FIRST_VELOCITY**2 * unit
        return cls(Axis(x, width, 0.0, noise, 0.0, speed, noise), Axis(y, height, 0.0, noise, 0.0, speed, noise))

    def box(self) -> Box:
        """Where it is; parts may lie outside the picture."""
        (x, width, *_), (y, height, *_) = self
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2

    def after(self, seconds: float) -> Motion:
        """What is to be expected in ``seconds`` (0 or more)."""
        x, y = self
        unit = _unit(x.side, y.side)
        return Motion(x.after(seconds, unit), y.after(seconds, unit))

    def seen(self, box: Box) -> Motion:
        """What is to be believed when ``box`` was seen where this one was expected."""
        x, y, width, height = _centre_and_sides(box)
        noise = MEASUREMENT**2 * _unit(width, height)
        return Motion(self.x.seen(x, width, noise), self.y.seen(y, height, noise))


def _centre_and_sides(box: Box) -> tuple[float, float, float, float]:
    left, top, right, bottom = box
    return (left + right) / 2, (top + bottom) / 2, max(right - left, 1e-3), max(bottom - top, 1e-3)


def _unit(width: float, height: float) -> float:
    """The square of a box's scale, by which its noise is measured: its area, a pixel's at least."""
    return max(width * height, 1.0)
