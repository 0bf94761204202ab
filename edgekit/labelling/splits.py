"""Which frames are learnt from and which are evaluated on, where neighbours are nearly the same picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 32
"""Frames that stay together. Neighbours land on both sides only where blocks meet."""


def validation_blocks(holds: NDArray[np.bool_], share: float) -> NDArray[np.bool_] | None:
    """[N] whether each frame is evaluated on: about ``share`` of them, in blocks spread evenly over all.

    A frame that holds something is on either side; the blocks move on until that is so.

    Args:
        holds: [N] whether there is anything to find in each frame, in the order of the pictures' names and the videos'
            time.
        share: above 0, at most .9.

    Returns:
        ``None`` if fewer than two frames hold anything.
    """
    if holds.sum() < 2:
        return None
    chosen = _blocks(len(holds), share)
    moved = (np.roll(chosen, shift) for shift in range(len(holds)))
    return next((one for one in moved if holds[one].any() and holds[~one].any()), None)


def _blocks(count: int, share: float) -> NDArray[np.bool_]:
    """Each of some equal stretches has its block in the middle."""
    wanted = min(max(1, round(count * share)), count - 1)
    blocks = -(-wanted // BLOCK)
    ends = np.linspace(0, count, blocks + 1).round().astype(int)
    sizes = np.diff(np.linspace(0, wanted, blocks + 1).round().astype(int))
    chosen = np.zeros(count, np.bool_)
    for start, end, size in zip(ends[:-1], ends[1:], sizes, strict=True):
        first = start + (end - start - size + 1) // 2
        chosen[first : first + size] = True
    return chosen
