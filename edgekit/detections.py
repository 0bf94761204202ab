"""The one form in which detections leave a detector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Detections of one image, best score first."""

    boxes_xyxy: NDArray[np.float32]
    """[N, 4] left, top, right, bottom in pixels of the source image, 0-based, right and bottom exclusive."""

    scores: NDArray[np.float32]
    """[N] in 0..1, not increasing."""

    class_ids: NDArray[np.int64]
    """[N] index into the detector's ``classes``."""

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def empty(cls) -> Detections:
        """No detection at all."""
        return cls(
            boxes_xyxy=np.zeros((0, 4), np.float32), scores=np.zeros(0, np.float32), class_ids=np.zeros(0, np.int64)
        )
