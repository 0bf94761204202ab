"""Two engines that compute the same detector: frame by frame, whichever is faster at its share of active cells."""

from __future__ import annotations

import numpy as np

from edgekit.backends import Engine, Tensors
from edgekit.data.letterbox import normalise
from edgekit.spec import DetectorSpec


class ByShare:
    """A sparse detector up to a share of active cells, a dense one above it."""

    takes_pixels = True

    def __init__(self, sparse: Engine, dense: Engine, *, share: float, spec: DetectorSpec) -> None:
        """Take turns between two loaded detectors.

        Args:
            sparse: takes pixels; its time follows the number of active cells.
            dense: its time does not.
            share: 0..1, the largest share of active cells that ``sparse`` gets.
            spec: how ``dense`` wants its picture normalised.
        """
        assert sparse.takes_pixels
        self._sparse, self._dense = sparse, dense
        self._share, self._spec = share, spec
        self.name = f"{sparse.name}, above {100 * share:.0f} % active {dense.name}"

    def run(self, inputs: Tensors) -> Tensors:
        """Run one of the two; ``image`` is the picture itself, uint8."""
        assert inputs["image"].dtype == np.uint8
        if inputs["mask"].mean() <= self._share:
            return self._sparse.run(inputs)
        if self._dense.takes_pixels:
            return self._dense.run(inputs)
        # It comes as a view of NHWC memory, and stays one: engines of that layout need not copy.
        return self._dense.run({**inputs, "image": normalise(inputs["image"], self._spec)})
