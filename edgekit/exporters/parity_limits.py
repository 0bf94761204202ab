"""How far from PyTorch a converted model may be: the tolerances of the gate and of ``edgekit verify --against``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgekit.exporters.parity import Parity

NEGLIGIBLE = 1e-3
"""A difference of raw values under this moves no score by more than 0.0003 and no box by more than 0.03 px. Tensors
that are all but zero have no direction, so their cosine says nothing."""


@dataclass(frozen=True, kw_only=True)
class ParityLimits:
    """How far from PyTorch a conversion of one precision may be."""

    logit_cosine: float
    """Smallest cosine of the raw logits of a picture."""

    offset_cosine: float
    """Smallest cosine of the raw box offsets of a picture."""

    box_px: float
    """A candidate may differ by this much in a box side, in input pixels."""

    score: float
    """A candidate may differ by this much in score."""

    disagreeing_share: float
    """Share of the candidates that may be further apart, and of the detections that may lack a partner; rounded up,
    so that one always may."""

    mask_share: float
    """Share of the mask cells that may differ."""

    def to_json(self) -> dict[str, Any]:
        """A dictionary that ``json`` can write."""
        return asdict(self)


PARITY_LIMITS = {
    # Engines add in another order than PyTorch: 1e-5 in a logit, 1e-3 px in a box (measured). A hundred times that is
    # far from any fault of a converter, and cells may differ only where an objectness is exactly at the threshold.
    "fp32": ParityLimits(
        logit_cosine=0.99999, offset_cosine=0.9999, box_px=0.5, score=0.01, disagreeing_share=0.01, mask_share=0.001
    ),
    # 11 bits of mantissa: errors of 1e-2 in a logit (toolchain trials: 1.6e-2 over a whole detector).
    "fp16": ParityLimits(
        logit_cosine=0.9999, offset_cosine=0.999, box_px=2.0, score=0.03, disagreeing_share=0.02, mask_share=0.005
    ),
    # 8 bits: a good conversion has cosines over .999 and .99, and moves a few scores by a tenth; a collapsed layer
    # falls below .9. Limits lie between; what int8 costs on average is the business of the accuracy half.
    "int8": ParityLimits(
        logit_cosine=0.98, offset_cosine=0.95, box_px=16.0, score=0.25, disagreeing_share=0.25, mask_share=0.05
    ),
}
"""Precision -> limits."""


def parity_failures(parity: Parity, limits: ParityLimits) -> Iterable[str]:
    """One sentence for each broken limit; none if ``parity`` keeps them all."""
    over = f"over {parity.images} pictures"
    for name, tensor in parity.tensors.items():
        least = limits.logit_cosine if name.endswith("logits") else limits.offset_cosine
        if tensor.cosine < least and tensor.max_abs > NEGLIGIBLE:
            yield (
                f"{name} of what is active: cosine with PyTorch expected at least {least}, got {tensor.cosine:.5f}"
                f" {over} (largest difference {tensor.max_abs:.3g})"
            )
    if parity.mask_share_differing > limits.mask_share:
        yield (
            f"mask: expected at most {100 * limits.mask_share:g} % of the cells to differ,"
            f" got {100 * parity.mask_share_differing:.2f} % {over}"
        )
    allowed = max(1, int(np.ceil(limits.disagreeing_share * parity.candidates)))
    if parity.disagreeing > allowed:
        yield (
            f"candidates: expected at most {allowed} of {parity.candidates} to be more than"
            f" {limits.box_px:g} px or {limits.score:g} in score away from PyTorch's, got {parity.disagreeing} {over}"
            f" (worst box {parity.box_error_px:.1f} px, worst score {parity.score_error:.3f})"
        )
    allowed = max(1, int(np.ceil(limits.disagreeing_share * parity.detections)))
    if parity.unpaired > allowed:
        yield (
            f"detections: expected at most {allowed} of PyTorch's {parity.detections} and the converted model's to lack"
            f" a partner on the other side, got {parity.unpaired} {over}"
        )
