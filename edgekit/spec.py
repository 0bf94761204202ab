"""What a runtime must know about a detector besides its weights.

One frozen dataclass travels unchanged from the checkpoint to the bundle to the camera loop, so that training,
export and run cannot disagree about anchors, normalisation or thresholds. Nothing here needs PyTorch.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

TOKEN_STRIDES = (8, 16, 32, 64)
"""Pixels of the input from one token of a DETR's level to the next."""

ENCODER_STEPS = 4
"""A DETR's encoder is exported for so many numbers of tokens, up to its budget: a frame in which less may be looked at
takes the smallest that suffices, since shapes inside a graph are fixed."""


class Described(Protocol):
    """What must be known of whatever looks at frames, to report and draw what it found."""

    @property
    def model(self) -> str:
        """Its name."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """What it knows, in the order of class ids."""
        ...

    @property
    def height(self) -> int:
        """Of its input, in pixels, over which its mask lies."""
        ...

    @property
    def width(self) -> int:
        """Likewise."""
        ...

    @property
    def score_threshold(self) -> float:
        """Lowest score 0..1 that it reports if nobody says otherwise."""
        ...


@dataclass(frozen=True, kw_only=True)
class AnchorLevel:
    """The anchors of one feature map: the same ``sizes`` at every cell of a ``rows`` x ``columns`` grid."""

    rows: int
    columns: int
    sizes: tuple[tuple[float, float], ...]
    """(width, height) of each anchor, in input pixels."""


@dataclass(frozen=True, kw_only=True)
class TwoStage:
    """How regions are proposed, in a detector that classifies regions (Faster R-CNN, arXiv 1506.01497, section 3.1)."""

    before_nms: int
    """How many of the best anchors enter suppression."""

    proposals: int = 200
    """How many leave it at most, each a region of interest (RoI) that the head classifies."""

    nms_iou: float = 0.7
    """Overlap over which the lower-scored of two proposals is dropped."""

    smallest: float = 16.0
    """Proposals with a shorter side, in pixels of the picture before it was resized, are dropped."""


@dataclass(frozen=True, kw_only=True)
class Detr:
    """What a detection transformer is built from besides its model (Sparse DETR, arXiv 2111.14330)."""

    queries: int
    """Of the decoder, each of which answers for one object at most."""

    token_share: float | None = None
    """Share of the encoder's tokens that it refines, above 0 to 1 (rho in the paper); ``None`` is all of them, without
    a network that scores them."""


@dataclass(frozen=True, kw_only=True)
class DetectorSpec:
    """Input, anchors, mask and post-processing of one trained detector."""

    model: str
    """Registered name, e.g. ``mobilenetv2-ssdlite-omg``."""

    classes: tuple[str, ...]
    """Class names, in the order of the logits; there is no background entry."""

    height: int
    """Input height in pixels."""

    width: int
    """Input width in pixels."""

    anchors: tuple[AnchorLevel, ...]
    """Feature maps from the finest to the coarsest; anchors are ordered level, row, column, size. Those of a two-stage
    detector are what it proposes from; a DETR has none."""

    two_stage: TwoStage | None = None
    """``None`` where anchors are classified themselves: scores are sigmoids then, and offsets have variances. Otherwise
    scores are a softmax over the classes and a background, and boxes are coded as in Faster R-CNN."""

    detr: Detr | None = None
    """Of a detection transformer, whose boxes are shares of the input and need no suppression; else ``None``."""

    width_multiplier: float = 1.0
    """Channels over those of the published network; what is built from the spec, not how it is run."""

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

    mask_grid: tuple[int, int] = (20, 20)
    """Rows and columns of the objectness mask over the letterboxed input."""

    mask_threshold: float = 0.1
    """Cells whose objectness (0..1) reaches it are active; low, because a lost cell is a lost object."""

    mask_threshold_exponent: float = 0.0
    """How steeply the threshold falls in unsure frames (``edgekit.masks.threshold``); 0 is the same for all frames."""

    mask_dilation: int = 0
    """Active cells grow by this many cells in all eight directions."""

    @property
    def kind(self) -> Literal["one_stage", "two_stage", "detr"]:
        """How it detects, by which training, engines and decoding tell detectors apart."""
        if self.detr is not None:
            return "detr"
        return "one_stage" if self.two_stage is None else "two_stage"

    @property
    def token_maps(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of the maps that a DETR's tokens come from, of the strides 8, 16, 32 and 64."""
        return tuple((-(-self.height // stride), -(-self.width // stride)) for stride in TOKEN_STRIDES)

    @property
    def encoders(self) -> dict[str, int]:
        """Graphs that a DETR's encoder is exported as, and how many tokens each refines, the fewest first."""
        if self.detr is None:
            return {}
        tokens = sum(rows * columns for rows, columns in self.token_maps)
        budget = tokens if self.detr.token_share is None else token_budget(tokens, self.detr.token_share)
        counts = {math.ceil(budget * step / ENCODER_STEPS) for step in range(1, ENCODER_STEPS + 1)}
        return {f"encoder_{count}": count for count in sorted(counts)}

    @property
    def graphs(self) -> tuple[str, ...]:
        """Names of the graphs that the detector is exported as; ``omg`` is the network in front of it."""
        match self.kind:
            case "one_stage":
                return ("omg", "detector")
            case "two_stage":
                return ("omg", "shared", "head")
            case "detr":
                return ("omg", "backbone", *self.encoders, "decoder")

    @property
    def sparse_graphs(self) -> tuple[str, ...]:
        """Those of :attr:`graphs` that sparse programs can express: all but what works on tokens."""
        return tuple(name for name in self.graphs if not is_of_tokens(name))

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
        grid, two_stage, detr = document["mask_grid"], document.get("two_stage"), document.get("detr")
        rows, columns = (grid, grid) if isinstance(grid, int) else grid  # one number was all until inputs were oblong
        return cls(
            **{
                **document,
                "anchors": levels,
                "classes": tuple(map(str, document["classes"])),
                "mask_grid": (int(rows), int(columns)),
                "two_stage": None if two_stage is None else TwoStage(**two_stage),
                "detr": None if detr is None else Detr(**detr),
            }
        )


def token_budget(tokens: int, share: float) -> int:
    """How many of ``tokens`` a sparse encoder refines: the share of them, rounded down, and one (arXiv 2111.14330)."""
    return min(int(tokens * share) + 1, tokens)


def is_of_tokens(graph: str) -> bool:
    """Whether a graph of :attr:`DetectorSpec.graphs` reads and writes a DETR's tokens: it has no convolutions."""
    return graph == "decoder" or graph.startswith("encoder_")


def graph_precision(graph: str, precision: str) -> str:
    """Of ``graph`` in a conversion to ``precision``: tokens are never integers, only what convolves is."""
    return "fp32" if precision == "int8" and is_of_tokens(graph) else precision
