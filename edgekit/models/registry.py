"""Every network that edgekit can build, by the name that people type. Importing this needs no PyTorch.

``NETWORKS`` has them all, as published; ``MODELS`` are those of them that can be trained and exported.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from edgekit.errors import UsageError
from edgekit.spec import DetectorSpec

if TYPE_CHECKING:
    from torch import nn

    from edgekit.models.masked_detector import MaskedDetector


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """One network that can be trained."""

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
        UsageError: no such model; the message names the nearest and all. Or a network that cannot be trained.
    """
    if name in MODELS:
        return MODELS[name]
    if name in NETWORKS:
        raise UsageError(f"{name} can be built, but not trained yet. These can: {', '.join(MODELS)}")
    near = difflib.get_close_matches(name, MODELS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise UsageError(f"no model is called {name!r}{hint} There are: {', '.join(MODELS)}")


def build(name: str, classes: tuple[str, ...], *, size: int | None = None) -> MaskedDetector:
    """A freshly initialised model.

    Raises:
        UsageError: no such model, or a size it cannot take.
    """
    from edgekit.models.masked_detector import MaskedDetector

    info = find_model(name)
    return MaskedDetector(info.spec(classes, info.input_size if size is None else size))


@dataclass(frozen=True, kw_only=True)
class NetworkInfo:
    """One network in the form in which it is counted: that of its publication, or for VOC's classes."""

    name: str
    summary: str
    height: int
    width: int
    """Of the input in pixels."""

    classes: int
    """Without a background."""

    rois: int = 0
    """Regions of a picture that its head classifies; 0 where it has no such head."""

    build: Callable[[], nn.Module]
    """The network, freshly initialised; needs PyTorch."""


VOC_CLASSES = 20


def _trainable(model: ModelInfo) -> NetworkInfo:
    return NetworkInfo(
        name=model.name,
        summary=model.summary,
        height=model.input_size,
        width=model.input_size,
        classes=VOC_CLASSES,
        build=partial(build, model.name, tuple(f"class {index}" for index in range(VOC_CLASSES))),
    )


def _pvanet(variant: str, summary: str, *, compressed: bool = False) -> NetworkInfo:
    def create() -> nn.Module:
        from edgekit.models.pvanet import PVANet

        return PVANet(variant, classes=VOC_CLASSES, compressed=compressed)

    # Size and RoIs are those of table 1 in arXiv 1608.08021.
    name = f"pvanet-{variant}" + "-compressed" * compressed
    return NetworkInfo(name=name, summary=summary, height=640, width=1056, classes=VOC_CLASSES, rois=200, build=create)


def _pvanet_classifier(variant: str, summary: str) -> NetworkInfo:
    side, classes = 192, 1000  # as the published files train it

    def create() -> nn.Module:
        from edgekit.models.pvanet import PVANetClassifier

        return PVANetClassifier(variant, side=side, classes=classes)

    return NetworkInfo(
        name=f"pvanet-{variant}-imagenet", summary=summary, height=side, width=side, classes=classes, build=create
    )


NETWORKS: dict[str, NetworkInfo] = {
    network.name: network
    for network in (
        *map(_trainable, MODELS.values()),
        _pvanet("9.0", "PVANet under Faster R-CNN (arXiv 1608.08021)"),
        _pvanet("9.0", "PVANet 9.0 with its classifier of RoIs in two halves (arXiv 1608.08021)", compressed=True),
        _pvanet("9.1", "PVANet with pre-activation and 42 anchors (arXiv 1611.08588)"),
        _pvanet("9.1", "PVANet 9.1 with its classifier of RoIs in two halves (arXiv 1611.08588)", compressed=True),
        _pvanet("lite", "PVANet-lite, published beside 9.0 without a paper (github.com/sanghoon/pva-faster-rcnn)"),
        _pvanet_classifier("9.0", "ImageNet classifier that the trunk of PVANet 9.0 comes from (arXiv 1608.08021)"),
        _pvanet_classifier("9.1", "ImageNet classifier that the trunk of PVANet 9.1 comes from (arXiv 1611.08588)"),
    )
}
"""In the order of ``edgekit models``."""
