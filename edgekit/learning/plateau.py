"""The learning-rate schedule that PVANet was trained with: a tenth whenever the loss has stopped falling.

Caffe's "plateau" policy (``sgd_solver.cpp`` in the fork that https://github.com/sanghoon/pva-faster-rcnn uses). An
event is a new minimum of the loss, smoothed over 100 steps, or a drop of the rate. When a window of steps has passed
since the last event, the rate drops, and the next window counts. After the last window it stays.
"""

from __future__ import annotations

from collections import deque
from typing import Any

SMOOTHED_STEPS = 100
"""``average_loss`` of the published solver."""


class LossPlateau:
    """How often the rate has dropped."""

    def __init__(self, windows: tuple[int, ...]) -> None:
        """Start at no drop; ``windows`` are the steps of patience before each of them."""
        self.windows = windows
        self.drops = 0
        self._losses: deque[float] = deque(maxlen=SMOOTHED_STEPS)
        self._minimum = float("inf")
        self._since_event = 0

    def step(self, loss: float) -> None:
        """Take note of one step's loss."""
        self._losses.append(loss)
        smoothed = sum(self._losses) / len(self._losses)
        self._since_event += 1
        if smoothed < self._minimum:
            self._minimum, self._since_event = smoothed, 0
        if self.drops < len(self.windows) and self._since_event >= self.windows[self.drops]:
            self.drops, self._since_event = self.drops + 1, 0

    def state(self) -> dict[str, Any]:
        """What resuming needs."""
        return {
            "drops": self.drops,
            "losses": list(self._losses),
            "minimum": self._minimum,
            "since_event": self._since_event,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go back to an earlier :meth:`state`."""
        self.drops, self._minimum, self._since_event = state["drops"], state["minimum"], state["since_event"]
        self._losses = deque(state["losses"], maxlen=SMOOTHED_STEPS)
