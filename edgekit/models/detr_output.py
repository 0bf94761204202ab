"""What a DETR puts out (Deformable DETR, arXiv 2010.04159; Sparse DETR, arXiv 2111.14330).

B batch, S tokens of all levels one after the other, k tokens that a sparse encoder updates, Q queries of the decoder,
C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class HeadOutput:
    """Classes and boxes of N tokens or queries."""

    logits: Tensor
    """[B, N, C]."""

    boxes: Tensor
    """[B, N, 4] centre x, centre y, width, height, 0..1 of the picture."""


@dataclass(frozen=True)
class DecoderAttention:
    """Where the decoder looked, all its layers: the labels of the scoring network come from it. Without gradient."""

    locations: Tensor
    """[B, decoder layers, Q, heads, levels, points, 2] x, y, 0..1 of the padded map."""

    weights: Tensor
    """[B, decoder layers, Q, heads, levels, points], sum 1 over levels x points."""


@dataclass(frozen=True)
class DetrOutput:
    """All that a batch's losses need."""

    decoder: tuple[HeadOutput, ...]
    """One a decoder layer; the last is the result."""

    proposals: HeadOutput | None
    """The two-stage head over all tokens [B, S, ...], before the best are chosen; ``None`` without two stages."""

    encoder: tuple[HeadOutput, ...]
    """The encoder's auxiliary heads over the selected tokens [B, k, ...]."""

    scores: Tensor | None
    """[B, S] logits of the scoring network; ``None`` where the encoder is dense."""

    attention: DecoderAttention | None
    """In the training of a sparse encoder only."""

    kept: Tensor | None
    """[B] int64, how many tokens each picture keeps."""

    padding: Tensor
    """[B, S] bool, true where a token lies in the padding of the batch."""

    shapes: tuple[tuple[int, int], ...]
    """Rows and columns of each level; S is the sum of their products."""

    allowed: Tensor | None = None
    """[B, S] bool, true where an objectness mask lets a token be kept; ``None`` is everywhere."""

    @property
    def never_kept(self) -> Tensor:
        """[B, S] bool: the tokens that no picture can keep."""
        return self.padding if self.allowed is None else self.padding | ~self.allowed
