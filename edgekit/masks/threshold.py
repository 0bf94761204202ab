"""From which objectness a cell is active: lower in frames where the network is sure of nothing.

Where the network sees one object clearly, it tends to see them all, and a cell of .1 is clutter. In a frame whose best
cell is at .7, a cell of .05 may be the object. So the threshold follows the frame's highest objectness, as thresholds
on class activation maps do (arXiv 1512.04150, section 3.1), only more steeply. Where 98 % of the boxes in photographs
stay visible (voc07 val), this takes their active area from .545 to .533, and a fixed camera's (pets09) from .243 to
.208 (the mask network of ``default.pt``).
"""

from __future__ import annotations

from edgekit.spec import DetectorSpec

LEAST = 0.25
"""Of ``spec.mask_threshold``: an empty frame, where the network is sure of nothing either, must stay cheap."""


def frame_threshold(best: float, spec: DetectorSpec) -> float:
    """The threshold 0..1 for a frame whose highest objectness is ``best`` (0..1)."""
    sureness = float(best**spec.mask_threshold_exponent)
    return spec.mask_threshold * max(LEAST, sureness)
