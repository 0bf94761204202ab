"""A ceiling on the share of active sites, so that no frame costs more than the board has time for.

What a mask has beyond its budget goes by objectness: the cells kept are the likeliest to hold something. A convolution
skips the rest, and a transformer refines no token there, so the budget means the same for both.
"""

from __future__ import annotations

import numpy as np

from edgekit.masks.pyramid import Mask
from edgekit.masks.sources import MaskInput, MaskSource


class Budget:
    """What ``source`` wants, but at most a share of all cells.

    The OMG network is asked only in frames whose mask is too large.
    """

    def __init__(self, source: MaskSource, *, share: float) -> None:
        """Raises ``ValueError`` unless ``share`` is above 0 and at most 1, which is ``source`` itself."""
        if not 0 < share <= 1:
            raise ValueError(f"a budget is a share of the cells, above 0 and at most 1, got {share}")
        self._source = source
        self._share = share

    def __call__(self, frame: MaskInput) -> Mask:
        """The mask of ``frame``; one cell at least where it has any."""
        mask = self._source(frame)
        most = max(1, int(self._share * mask.size + 1e-9))  # .29 of 100 cells is 29
        if np.count_nonzero(mask) <= most:
            return mask
        ranking = np.where(mask, frame.objectness(), -1.0).ravel()
        kept = np.zeros(mask.size, np.bool_)
        kept[np.argsort(-ranking, kind="stable")[:most]] = True
        return kept.reshape(mask.shape)
