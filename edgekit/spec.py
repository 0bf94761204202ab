"""What a runtime must know about a detector besides its weights.

One frozen dataclass travels unchanged from the checkpoint to the bundle to the camera loop, so that training,
export and run cannot disagree about anchors, normalisation or thresholds. Nothing here needs PyTorch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class AnchorLevel:
    """The anchors of one feature map: the same ``sizes`` at every cell of a ``rows`` x ``columns`` grid."""

    rows: int
    columns: int
    sizes: tuple[tuple[float, float], ...]
    """(width, height) of each anchor, in input pixels."""


@dataclass(frozen=True, kw_only=True)
class DetectorSpec:
    """Input, anchors, mask and post-processing of one trained detector."""

    model: str
    """Registered name, e.g. ``mobilenetv2-ssdlite-omg``."""

    classes: tuple[str, ...]
    """Class names, in the order of the logits; there is no background entry (scores are sigmoids)."""

    height: int
    """Input height in pixels."""

    width: int
    """Input width in pixels."""

    anchors: tuple[AnchorLevel, ...]
    """Feature maps from the finest to the coarsest; anchors are ordered level, row, column, size."""

    mean: float = 128.0
    """Subtracted from every RGB value; 128 makes the letterbox padding and the masked background exactly 0."""

    std: float = 128.0
    """Divides the result: inputs lie in [-1, 1), and an int8 input is exactly ``pixel - 128``."""

    centre_variance: float = 0.1
    """Box offsets are multiplied by it before they move the centre (SSD, arXiv 1512.02325)."""

    size_variance: float = 0.2
    """Box offsets are multiplied by it before they scale the size (SSD, arXiv 1512.02325)."""

    score_threshold: float = 0.3
    """Detections below it are dropped by ``run``; evaluation uses its own, lower one."""

    nms_iou: float = 0.5
    """Overlap over which the lower-scored of two boxes of one class is dropped."""

    vote_iou: float = 0.55
    """Overlap from which dropped boxes correct the one that was kept (``edgekit.boxes.vote``); 1 switches it off."""

    max_detections: int = 100
    """At most this many detections an image."""

    mask_grid: int = 20
    """The objectness mask has ``mask_grid`` x ``mask_grid`` cells over the letterboxed input."""

    mask_threshold: float = 0.1
    """Cells whose objectness (0..1) reaches it are active; low, because a lost cell is a lost object."""

    mask_threshold_exponent: float = 0.0
    """How steeply the threshold falls in unsure frames (``edgekit.masks.threshold``); 0 is the same for all frames."""

    mask_dilation: int = 0
    """Active cells grow by this many cells in all eight directions."""

    def to_json(self) -> dict[str, Any]:
        """A dictionary that ``json`` can write and :meth:`from_json` reads back to an equal object."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> DetectorSpec:
        """The inverse of :meth:`to_json`; raises ``KeyError`` or ``TypeError`` on a malformed document."""
        levels = tuple(
            AnchorLevel(
                rows=int(level["rows"]),
                columns=int(level["columns"]),
                sizes=tuple((float(width), float(height)) for width, height in level["sizes"]),
            )
            for level in document["anchors"]
        )
        return cls(**{**document, "anchors": levels, "classes": tuple(map(str, document["classes"]))})
