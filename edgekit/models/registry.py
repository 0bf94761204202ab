"""Every network that edgekit can build, by the name that people type. Importing this needs no PyTorch."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekit.errors import UsageError
from edgekit.spec import DetectorSpec

if TYPE_CHECKING:
    from edgekit.models.masked_detector import MaskedDetector


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """One registered network."""

    name: str
    summary: str
    input_size: int
    """Default height and width in pixels."""

    spec: Callable[[tuple[str, ...], int], DetectorSpec]
    """(class names, input size) -> what the model is built from; needs PyTorch for nothing but the import."""


def _mobilenetv2_ssdlite_omg(classes: tuple[str, ...], size: int) -> DetectorSpec:
    from edgekit.models.mobilenetv2_ssdlite import anchor_levels

    if size <= 0 or size % 64:
        raise UsageError(f"mobilenetv2-ssdlite-omg needs an input size that is a multiple of 64, got {size}")
    return DetectorSpec(
        model="mobilenetv2-ssdlite-omg",
        classes=classes,
        height=size,
        width=size,
        anchors=anchor_levels(height=size, width=size),
        mask_grid=size // 16,
        mask_threshold_exponent=12.0,
    )


MODELS: dict[str, ModelInfo] = {
    "mobilenetv2-ssdlite-omg": ModelInfo(
        name="mobilenetv2-ssdlite-omg",
        summary="MobileNetV2-SSDLite behind an objectness mask (arXiv 1801.04381, 2002.01609)",
        input_size=320,
        spec=_mobilenetv2_ssdlite_omg,
    ),
}


def find_model(name: str) -> ModelInfo:
    """The entry of ``name``.

    Raises:
        UsageError: no such model; the message names the nearest and all.
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise UsageError(f"no model is called {name!r}{hint} There are: {', '.join(MODELS)}")
    return MODELS[name]


def build(name: str, classes: tuple[str, ...], *, size: int | None = None) -> MaskedDetector:
    """A freshly initialised model.

    Raises:
        UsageError: no such model, or a size it cannot take.
    """
    from edgekit.models.masked_detector import MaskedDetector

    info = find_model(name)
    return MaskedDetector(info.spec(classes, info.input_size if size is None else size))
