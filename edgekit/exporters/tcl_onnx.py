"""A TCL model's image side -> ONNX, and what a board must know about it. Text stays outside the graph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.data.pair_crops import RATIO
from edgekit.errors import UsageError
from edgekit.exporters.dependencies import load
from edgekit.segmentation.spec import SegmenterSpec

if TYPE_CHECKING:
    from edgekit.models.tcl.model import TCL
    from edgekit.models.tcl.segmenter import SegmentOptions

STRETCH = RATIO
"""What crops are stretched by in training. Bars cost more than stretching: on 30 masks of VOC 2007 the small model had
an mIoU of .306 with bars above or beside pictures of other shapes than the input, and of .327 stretched to fill it."""

LONGEST = 8192
"""Pixels of a side of the input."""


def default_size(model: TCL, options: SegmentOptions) -> tuple[int, int]:
    """(height, width) of the input if nobody says otherwise: a 4:3 camera's picture in the size that the model learnt
    from, one of 16:9 a little stretched; where pictures are seen in windows, one of these."""
    stride = model.stride
    height = min(options.window, -(-options.short_side // stride) * stride)
    width = min(options.window, -(-options.short_side * 4 // (3 * stride)) * stride)
    return height, width


def segmenter_spec(model: TCL, options: SegmentOptions, *, height: int, width: int) -> SegmenterSpec:
    """What a board must know about ``model`` in an input of ``height`` x ``width`` pixels.

    Raises:
        UsageError: a side is no multiple of the model's stride.
    """
    from edgekit.models.tcl.prompts import fingerprint

    stride = model.stride
    if height % stride or width % stride or not (stride <= height <= LONGEST and stride <= width <= LONGEST):
        raise UsageError(
            f"--imgsz: {model.spec.name} takes sides that are multiples of {stride} up to {LONGEST}, got "
            f"{height}x{width}; try {_near(height, stride)}x{_near(width, stride)}"
        )
    encoder, known = model.clip_image_encoder, options.clip_share > 0
    rows, columns = height // stride, width // stride
    factor = 2**model.spec.up_blocks
    return SegmenterSpec(
        model=model.spec.name,
        text=fingerprint(model),
        height=height,
        width=width,
        mean=encoder.pixel_mean,
        std=encoder.pixel_std,
        stretch=STRETCH,
        rows=rows * factor,
        columns=columns * factor,
        embedding=model.spec.embedding,
        sim_scale=model.masker.sim2mask.w.item(),
        sim_shift=model.masker.sim2mask.b.item(),
        clip_share=options.clip_share,
        known_rows=rows if known else 0,
        known_columns=columns if known else 0,
        pamr=options.pamr,
        background=options.background_score,
        templates=options.templates,
    )


def export_tcl(model: TCL, path: Path, spec: SegmenterSpec) -> None:
    """Write ``path``: ``image`` [1, 3, H, W] -> ``spec.outputs``, float32, opset 17; ``model`` is not changed.

    Raises:
        ExportError: the model uses an operation that ONNX cannot express.
        MissingDependencyError: torch or onnx is not installed.
    """
    torch = load("torch", package="torch", purpose="export a model")
    from edgekit.exporters.detr_onnx import write_static
    from edgekit.models.tcl.image_graph import ImageGraph

    graph = ImageGraph(model, height=spec.height, width=spec.width, known="known" in spec.outputs)
    write_static(graph, {"image": torch.zeros(1, 3, spec.height, spec.width)}, list(spec.outputs), path)


def _near(side: int, stride: int) -> int:
    return min(max(stride, -(-side // stride) * stride), LONGEST)
