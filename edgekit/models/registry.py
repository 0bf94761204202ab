"""Every network that edgekit can build, by the name that people type. Importing this needs no PyTorch.

``NETWORKS`` has them all, as published; ``MODELS`` are those of them that can be trained and exported.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from edgekit.errors import UsageError
from edgekit.spec import AnchorLevel, DetectorSpec, Detr, TwoStage

if TYPE_CHECKING:
    from torch import nn

    from edgekit.models.masked_detector import MaskedDetector


MAX_WIDTH = 4.0
"""Largest width multiplier: sixteen times the published network's weights."""


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """One network that can be trained."""

    name: str
    summary: str
    input_size: int
    """Default height and width in pixels."""

    spec: Callable[[tuple[str, ...], int, int], DetectorSpec]
    """(class names, input height, width) -> what the model is built from; needs PyTorch for nothing but the import."""

    variant: str | None = None
    """Which PVANet it is (``edgekit.models.pvanet.VARIANTS``); ``None`` for another detector."""

    compressed: bool = False
    """Whether that PVANet's classifier of RoIs is in two halves."""

    detr: str | None = None
    """Which DETR it is (``edgekit.models.detr_variants.VARIANTS``); ``None`` for another detector."""


def _mobilenetv2_ssdlite_omg(classes: tuple[str, ...], height: int, width: int) -> DetectorSpec:
    from edgekit.models.mobilenetv2_ssdlite import anchor_levels

    _check_size("mobilenetv2-ssdlite-omg", height, width, multiple=64)
    return DetectorSpec(
        model="mobilenetv2-ssdlite-omg",
        classes=classes,
        height=height,
        width=width,
        anchors=anchor_levels(height=height, width=width),
        mask_grid=(height // 16, width // 16),
        mask_threshold_exponent=12.0,
    )


def _pvanet_omg(variant: str, summary: str, *, compressed: bool = False) -> ModelInfo:
    name = f"pvanet-{variant}" + "-compressed" * compressed + "-omg"

    def spec(classes: tuple[str, ...], height: int, width: int) -> DetectorSpec:
        from edgekit.models.pvanet import VARIANTS
        from edgekit.models.pvanet_rois import STRIDE, cell_anchors
        from edgekit.two_stage import CLASS_NMS_IOU, VOTE_IOU

        _check_size(name, height, width, multiple=64)  # of the mask network; PVANet's own is 32
        cells = (height // STRIDE, width // STRIDE)
        boxes = cell_anchors(VARIANTS[variant].anchors).tolist()
        sizes = tuple((right - left + 1, bottom - top + 1) for left, top, right, bottom in boxes)
        return DetectorSpec(
            model=name,
            classes=classes,
            height=height,
            width=width,
            anchors=(AnchorLevel(rows=cells[0], columns=cells[1], sizes=sizes),),
            two_stage=TwoStage(before_nms=VARIANTS[variant].proposals_before_nms),
            nms_iou=CLASS_NMS_IOU,
            vote_iou=VOTE_IOU,
            mask_grid=cells,
            mask_threshold_exponent=12.0,
        )

    # Photographs of PASCAL VOC are 500 pixels wide; the published nets were tested at 640 pixels of the shorter side.
    return ModelInfo(name=name, summary=summary, input_size=512, spec=spec, variant=variant, compressed=compressed)


def _sparse_detr_omg(variant: str, summary: str, *, detr: Detr, input_size: int) -> ModelInfo:
    name = f"sparse-detr-{variant}-omg"

    def spec(classes: tuple[str, ...], height: int, width: int) -> DetectorSpec:
        _check_size(name, height, width, multiple=64)
        return DetectorSpec(
            model=name,
            classes=classes,
            height=height,
            width=width,
            anchors=(),
            detr=detr,
            mask_grid=(height // 16, width // 16),
            mask_threshold_exponent=12.0,
        )

    return ModelInfo(name=name, summary=summary, input_size=input_size, spec=spec, detr=variant)


def _check_size(name: str, height: int, width: int, *, multiple: int) -> None:
    if min(height, width) <= 0 or height % multiple or width % multiple:
        got = height if height == width else f"{height}x{width}"
        raise UsageError(f"{name} needs an input size that is a multiple of {multiple}, got {got}")


MODELS: dict[str, ModelInfo] = {
    model.name: model
    for model in (
        ModelInfo(
            name="mobilenetv2-ssdlite-omg",
            summary="MobileNetV2-SSDLite behind an objectness mask (arXiv 1801.04381, 2002.01609)",
            input_size=320,
            spec=_mobilenetv2_ssdlite_omg,
        ),
        _pvanet_omg("9.0", "PVANet 9.0 behind an objectness mask (arXiv 1608.08021, 2002.01609)"),
        _pvanet_omg(
            "9.0",
            "PVANet 9.0, its RoI classifier in two halves, behind an objectness mask (arXiv 1608.08021, 2002.01609)",
            compressed=True,
        ),
        _pvanet_omg("9.1", "PVANet 9.1 behind an objectness mask (arXiv 1611.08588, 2002.01609)"),
        _pvanet_omg(
            "9.1",
            "PVANet 9.1, its RoI classifier in two halves, behind an objectness mask (arXiv 1611.08588, 2002.01609)",
            compressed=True,
        ),
        _pvanet_omg("lite", "PVANet-lite behind an objectness mask (arXiv 2002.01609)"),
        _sparse_detr_omg(
            "mobilenetv2",
            "Sparse DETR of a board's size, three tenths of the tokens, behind an objectness mask (arXiv 2111.14330)",
            detr=Detr(queries=100, token_share=0.3),
            input_size=320,
        ),
        # Photographs of COCO are 640 pixels long; the published net was trained at up to 1333.
        _sparse_detr_omg(
            "r50",
            "Sparse DETR, a tenth of the tokens, behind an objectness mask (arXiv 2111.14330, 2002.01609)",
            detr=Detr(queries=300, token_share=0.1),
            input_size=640,
        ),
    )
}


def find_model(name: str) -> ModelInfo:
    """The entry of ``name``.

    Raises:
        UsageError: no such model; the message names the nearest and all. Or a network that cannot be trained.
    """
    if name in MODELS:
        return MODELS[name]
    if name in NETWORKS:
        other = trained_as(name)
        if other is not None:
            raise UsageError(f"{name} is the network as published; behind a mask network, as it is trained: {other}")
        raise UsageError(f"{name} can be built, but not trained yet. These can: {', '.join(MODELS)}")
    near = difflib.get_close_matches(name, MODELS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise UsageError(f"no model is called {name!r}{hint} There are: {', '.join(MODELS)}")


def trained_as(name: str) -> str | None:
    """The model that trains the network called ``name``: the same, or it behind a mask network, if there is one."""
    return next((model for model in (name, f"{name}-omg") if model in MODELS), None)


def build(
    name: str,
    classes: tuple[str, ...],
    *,
    size: int | None = None,
    width_multiplier: float = 1.0,
    token_share: float | None = None,
) -> MaskedDetector:
    """A freshly initialised model.

    Args:
        name: one of :data:`MODELS`.
        classes: class names.
        size: height and width of the input in pixels; ``None`` is the model's own.
        width_multiplier: channels over those of the published network, above 0; only PVANets have others than 1.
        token_share: of tokens that a DETR's encoder refines, above 0 to 1, which is all of them, without a network that
            scores them; ``None`` is the model's own.

    Raises:
        UsageError: no such model, or a size, a width or a share that it cannot take.
    """
    from edgekit.models.masked_detector import MaskedDetector

    info = find_model(name)
    if width_multiplier != 1 and info.variant is None:
        raise UsageError(f"{name} has one width, 1; got {width_multiplier:g}. PVANets have others, e.g. pvanet-9.1-omg")
    if not 0 < width_multiplier <= MAX_WIDTH:
        raise UsageError(f"a width multiplier is above 0 and at most {MAX_WIDTH:g}, got {width_multiplier:g}")
    side = info.input_size if size is None else size
    spec = replace(info.spec(classes, side, side), width_multiplier=width_multiplier)
    return MaskedDetector(spec if token_share is None else _with_tokens(spec, token_share))


def _with_tokens(spec: DetectorSpec, share: float) -> DetectorSpec:
    if spec.detr is None:
        raise UsageError(f"{spec.model} has no tokens to take a share of; DETRs have, e.g. sparse-detr-mobilenetv2-omg")
    if not 0 < share <= 1:
        raise UsageError(f"a share of tokens is above 0 and at most 1, got {share:g}")
    return replace(spec, detr=replace(spec.detr, token_share=share if share < 1 else None))


def spec_at(spec: DetectorSpec, *, height: int, width: int) -> DetectorSpec:
    """The same detector for another input size: its thresholds, with the anchors and cells of that size.

    Raises:
        UsageError: the model cannot take the size, or is not one of :data:`MODELS`.
    """
    other = find_model(spec.model).spec(spec.classes, height, width)
    return replace(spec, height=height, width=width, anchors=other.anchors, mask_grid=other.mask_grid)


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
COCO_LABELS = 91
"""Of COCO's numbers of its 80 classes, the highest and one: the published DETRs have a logit for each."""


def _trainable(model: ModelInfo) -> NetworkInfo:
    return NetworkInfo(
        name=model.name,
        summary=model.summary,
        height=model.input_size,
        width=model.input_size,
        classes=VOC_CLASSES,
        rois=0 if model.variant is None else TwoStage.proposals,
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


def _detr(
    name: str, summary: str, *, two_stage: bool = True, share: float | None = None, backbone: str = "r50"
) -> NetworkInfo:
    def create() -> nn.Module:
        from edgekit.models.resnet import ResNet
        from edgekit.models.sparse_detr import SparseDetr
        from edgekit.models.swin import SwinTransformer

        body = ResNet() if backbone == "r50" else SwinTransformer()
        body.freeze_stem()
        return SparseDetr(body, classes=COCO_LABELS, two_stage=two_stage, share=share)

    # The size is the mean one of COCO's pictures that arXiv 2111.14330 counts for.
    return NetworkInfo(
        name=f"{name}-{backbone}", summary=summary, height=850, width=1040, classes=COCO_LABELS, build=create
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
        _detr("deformable-detr", "Deformable DETR on ResNet-50 (arXiv 2010.04159)", two_stage=False),
        _detr("deformable-detr-plus", "Deformable DETR+: queries from its encoder, refined boxes (arXiv 2111.14330)"),
        _detr("sparse-detr", "Sparse DETR, a tenth of the tokens, on ResNet-50 (arXiv 2111.14330)", share=0.1),
        _detr("deformable-detr", "Deformable DETR on Swin-T (arXiv 2010.04159)", two_stage=False, backbone="swin-t"),
        _detr("deformable-detr-plus", "Deformable DETR+ on Swin-T", backbone="swin-t"),
        _detr("sparse-detr", "Sparse DETR, a tenth of the tokens, on Swin-T", share=0.1, backbone="swin-t"),
    )
}
"""In the order of ``edgekit models``."""
