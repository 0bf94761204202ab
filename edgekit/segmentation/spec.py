"""What a runtime must know about a segmenter besides its weights: one frozen dataclass that travels in the bundle."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

GRAPH = "segmenter"
"""Name of the one graph."""


@dataclass(frozen=True, kw_only=True)
class SegmenterSpec:
    """Input, maps and scores of one segmenter that is asked in words (TCL, arXiv 2212.00785)."""

    model: str
    """Name of the variant, e.g. ``tcl-mobilenetv2``."""

    text: str
    """Fingerprint of the text encoder (``edgekit.models.tcl.prompts``): embeddings of another one mean nothing here."""

    height: int
    """Of the input in pixels, a multiple of the image encoder's stride."""

    width: int
    """Likewise."""

    mean: tuple[float, float, float]
    """Subtracted from the values 0..255 of red, green and blue."""

    std: tuple[float, float, float]
    """Divides the result."""

    stretch: float
    """How much wider or narrower than it is (1 is not at all) a picture may become to fill the input; the rest of the
    input is bars. Training stretches its crops as much, and never sees bars."""

    rows: int
    """Of the map of embeddings."""

    columns: int
    """Likewise."""

    embedding: int
    """Numbers in which pictures and words meet."""

    sim_scale: float
    """A mask is sigmoid(sim_scale * cosine + sim_shift)."""

    sim_shift: float
    """See above."""

    clip_share: float = 0.0
    """Part (0..1) of the frozen encoder's own map in a score; the graph has the output ``known`` where it is not 0."""

    known_rows: int = 0
    """Of that map; 0 where there is none."""

    known_columns: int = 0
    """Likewise."""

    pamr: bool = True
    """Whether masks are refined along colours."""

    background: float = 0.5
    """Score (0..1) that a prompt must exceed; 0 leaves no background."""

    templates: str = "photo"
    """Sentences that the names of things were put into (``edgekit.models.tcl.prompts.TEMPLATES``)."""

    @property
    def graphs(self) -> tuple[str, ...]:
        """Names of the graphs."""
        return (GRAPH,)

    @property
    def outputs(self) -> dict[str, tuple[int, int, int, int]]:
        """Outputs of the graph, float32: their names and shapes [1, D, rows, columns]."""
        shapes = {"embedding": (1, self.embedding, self.rows, self.columns)}
        if self.clip_share:
            shapes["known"] = (1, self.embedding, self.known_rows, self.known_columns)
        return shapes

    def to_json(self) -> dict[str, Any]:
        """A dictionary for JSON."""
        return asdict(self)

    @staticmethod
    def from_json(document: dict[str, Any]) -> SegmenterSpec:
        """The spec that :meth:`to_json` wrote; raises ``KeyError``, ``TypeError`` or ``ValueError`` for another."""
        red, green, blue = (float(value) for value in document["mean"])
        spread = tuple(float(value) for value in document["std"])
        if len(spread) != 3:
            raise ValueError(f"std has {len(spread)} numbers where red, green and blue are expected")
        return SegmenterSpec(**{**document, "mean": (red, green, blue), "std": (spread[0], spread[1], spread[2])})
