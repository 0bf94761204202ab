"""What a detector made of a frame, before thresholds and suppression.

N candidates, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Everything that could become a detection."""

    scores: NDArray[np.float32]
    """[N, C] in 0..1."""

    boxes: NDArray[np.float32]
    """[N, C, 4], or [N, 1, 4] where the classes share a box: xyxy in input pixels, not clipped to the picture."""

    places: NDArray[np.int64]
    """[N] which anchor of the spec a candidate is, or which region of interest in the order of the proposals."""

    def box_of(self, rows: NDArray[np.int64], class_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """[K, 4] the boxes of candidates ``rows`` [K] as ``class_ids`` [K]."""
        shared = self.boxes.shape[1] == 1
        return np.asarray(self.boxes[rows, 0 if shared else class_ids])
