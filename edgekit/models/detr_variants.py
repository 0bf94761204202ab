"""The DETRs that can be trained: as published, and of a size for boards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from edgekit.models.backbone import Backbone
from edgekit.models.mobilenetv2_pyramid import MobileNetV2Pyramid
from edgekit.models.resnet import ResNet
from edgekit.models.sparse_detr import DetrSize, SparseDetr
from edgekit.spec import Detr


@dataclass(frozen=True, kw_only=True)
class DetrVariant:
    """A backbone and the size of what reads it."""

    backbone: Callable[[], Backbone]
    size: DetrSize


def _small_backbone() -> Backbone:
    # Its norms learn, and measure where there are no statistics to keep, as in MobileNetV2-SSDLite.
    return MobileNetV2Pyramid(frozen_norms=False)


VARIANTS: dict[str, DetrVariant] = {
    "mobilenetv2": DetrVariant(
        backbone=_small_backbone,
        # Half the width and half the layers cost an eighth. A net as small learns too little for dropout to help.
        size=DetrSize(width=128, encoder_layers=3, decoder_layers=3, feed_forward=512, dropout=0.0),
    ),
    "r50": DetrVariant(backbone=ResNet, size=DetrSize()),
}


def build_detr(variant: str, detr: Detr, *, classes: int) -> SparseDetr:
    """A freshly initialised DETR.

    Args:
        variant: one of :data:`VARIANTS`.
        detr: queries and share of tokens.
        classes: without a background.

    Raises:
        ValueError: a share beyond 0 to 1, or no queries.
    """
    info = VARIANTS[variant]
    size = replace(info.size, queries=detr.queries)
    return SparseDetr(info.backbone(), classes=classes, size=size, share=detr.token_share)
