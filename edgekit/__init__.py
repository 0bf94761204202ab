"""Train small object detectors, export them for edge boards, and run them there.

>>> import edgekit
>>> pipeline = edgekit.open_pipeline("default")
>>> result = pipeline.process(image_rgb)  # uint8 [h, w, 3]
>>> result.detections.boxes_xyxy          # float32 [N, 4], pixels of the image

``import edgekit`` loads none of these modules: each name is imported when it is first used, so a command that only
prints help does not wait for numpy, and a board needs only the engine that it uses. The rooms behind these names
(``edgekit.masks``, ``edgekit.backends``, ...) are importable too.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgekit.bundle import Bundle, open_bundle
    from edgekit.data.datasets import open_dataset
    from edgekit.data.letterbox import letterbox
    from edgekit.detections import Detections
    from edgekit.errors import EdgekitError
    from edgekit.masks.sources import MaskSource, parse_mask_source
    from edgekit.models.checkpoint import load_checkpoint
    from edgekit.pipeline import FrameResult, Pipeline, open_pipeline
    from edgekit.spec import DetectorSpec

__all__ = [
    "Bundle",
    "Detections",
    "DetectorSpec",
    "EdgekitError",
    "FrameResult",
    "MaskSource",
    "Pipeline",
    "letterbox",
    "load_checkpoint",
    "open_bundle",
    "open_dataset",
    "open_pipeline",
    "parse_mask_source",
]

_HOMES = {
    "Bundle": "edgekit.bundle",
    "Detections": "edgekit.detections",
    "DetectorSpec": "edgekit.spec",
    "EdgekitError": "edgekit.errors",
    "FrameResult": "edgekit.pipeline",
    "MaskSource": "edgekit.masks.sources",
    "Pipeline": "edgekit.pipeline",
    "letterbox": "edgekit.data.letterbox",
    "load_checkpoint": "edgekit.models.checkpoint",
    "open_bundle": "edgekit.bundle",
    "open_dataset": "edgekit.data.datasets",
    "open_pipeline": "edgekit.pipeline",
    "parse_mask_source": "edgekit.masks.sources",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgekit' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
