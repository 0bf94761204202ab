"""The golden files of a bundle: a PNG of the letterboxed input, and what the model made of it.

``golden_output.json`` has ``objectness``, G rows of G probabilities; ``mask``, G strings of 0 and 1; ``candidates``,
the K best (anchor, class) pairs with ``anchors``, or ``rois_xyxy`` where regions are classified, ``class_ids``,
``scores`` and ``boxes_xyxy``; and ``detections``
with ``boxes_xyxy``, ``scores`` and ``class_ids``, down to half the score threshold, so that a score that moves across
the threshold finds its partner. Boxes are in input pixels. ``golden_output_sparse.json`` is the same of the sparse
programs, where a bundle has them beside dense graphs.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.boxes import Boxes
from edgekit.bundle.fields import Fields, number, parse_json
from edgekit.bundle.listed import Golden
from edgekit.bundle.reading import Bundle, SegmentationBundle
from edgekit.bundle.segmentation_manifest import SegmentationGolden
from edgekit.data.picture_file import decode_picture
from edgekit.detections import Detections
from edgekit.errors import BundleError, BundleIntegrityError
from edgekit.masks.pyramid import Mask

INPUT, OUTPUT, SPARSE_OUTPUT = "golden_input.png", "golden_output.json", "golden_output_sparse.json"

FAR = 1e6
"""Boxes of candidates are not clipped to the picture; this bounds them."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """The golden output."""

    objectness: NDArray[np.float32]
    """[G, G] in 0..1."""

    mask: Mask
    """[G, G]."""

    anchors: NDArray[np.int64] | None
    """[K] anchor of each candidate of a one-stage detector."""

    rois: Boxes | None
    """[K, 4] region of each candidate of a two-stage one, right and bottom inclusive."""

    class_ids: NDArray[np.int64]
    """[K]."""

    scores: NDArray[np.float32]
    """[K] in 0..1."""

    boxes: NDArray[np.float32]
    """[K, 4] xyxy in input pixels, not clipped."""

    detections: Detections
    """After suppression, in input pixels."""


def read_picture(bundle: Bundle | SegmentationBundle, golden: Golden | SegmentationGolden) -> NDArray[np.uint8]:
    """The golden input [H, W, 3] RGB; raises :class:`BundleIntegrityError` if it is no PNG of the input's size."""
    spec, name = bundle.manifest.spec, golden.input
    data = bundle.file(name).read_bytes()
    # The size is checked in the header: decoding first would let a small file ask for gigabytes.
    size = struct.unpack(">II", data[16:24]) if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) >= 24 else None
    if size != (spec.width, spec.height):
        got = f"{size[0]}x{size[1]}" if size else "no PNG"
        raise BundleIntegrityError(f"{name} must be a PNG of {spec.width}x{spec.height} pixels, got {got}")
    try:
        return decode_picture(data, upright=False)
    except ValueError as error:
        raise BundleIntegrityError(f"{name} is a damaged PNG; copy the bundle again") from error


def encode_recording(recording: Recording) -> bytes:
    """``recording`` as JSON, rounded far below any tolerance."""
    found = recording.detections
    document = {
        "objectness": _rounded(recording.objectness, 6),
        "mask": ["".join("01"[int(cell)] for cell in row) for row in recording.mask],
        "candidates": {
            **_places(recording),
            "class_ids": recording.class_ids.tolist(),
            "scores": _rounded(recording.scores, 6),
            "boxes_xyxy": _rounded(recording.boxes, 3),
        },
        "detections": {
            "boxes_xyxy": _rounded(found.boxes_xyxy, 3),
            "scores": _rounded(found.scores, 6),
            "class_ids": found.class_ids.tolist(),
        },
    }
    return json.dumps(document).encode()


def read_recording(bundle: Bundle, golden: Golden) -> Recording:
    """The golden output; raises :class:`BundleError` naming the field that is wrong."""
    name, spec = golden.output, bundle.manifest.spec
    root = Fields(parse_json(bundle.file(name).read_bytes(), name), name)
    height, width = spec.mask_grid
    rows = root.texts("mask", most=height)
    if len(rows) != height or any(len(row) != width or set(row) - {"0", "1"} for row in rows):
        raise BundleError(f"{root.path('mask')} must be {height} rows of {width} characters 0 and 1")
    candidates, detections = root.child("candidates"), root.child("detections")
    anchors = sum(level.rows * level.columns * len(level.sizes) for level in spec.anchors)
    anchors = anchors if spec.detr is None else spec.detr.queries
    places = anchors if spec.two_stage is None else spec.two_stage.proposals
    last_class = len(spec.classes) - 1
    count = len(candidates.items("scores", most=places * len(spec.classes)))
    one_stage, far = spec.two_stage is None, max(spec.height, spec.width)
    found = len(detections.items("scores", most=spec.max_detections))
    return Recording(
        objectness=_array(root, "objectness", spec.mask_grid, 0, 1),
        mask=np.array([[cell == "1" for cell in row] for row in rows], np.bool_),
        anchors=_array(candidates, "anchors", (count,), 0, anchors - 1).astype(np.int64) if one_stage else None,
        rois=None if one_stage else _array(candidates, "rois_xyxy", (count, 4), 0, far),
        class_ids=_array(candidates, "class_ids", (count,), 0, last_class).astype(np.int64),
        scores=_array(candidates, "scores", (count,), 0, 1),
        boxes=_array(candidates, "boxes_xyxy", (count, 4), -FAR, FAR),
        detections=Detections(
            boxes_xyxy=_array(detections, "boxes_xyxy", (found, 4), 0, max(spec.height, spec.width)),
            scores=_array(detections, "scores", (found,), 0, 1),
            class_ids=_array(detections, "class_ids", (found,), 0, last_class).astype(np.int64),
        ),
    )


def _places(recording: Recording) -> dict[str, Any]:
    if recording.rois is not None:
        return {"rois_xyxy": recording.rois.astype(np.float64).tolist()}  # rounded ones might pool other cells
    assert recording.anchors is not None
    return {"anchors": recording.anchors.tolist()}


def _rounded(values: NDArray[np.float32], digits: int) -> Any:
    return np.round(values.astype(np.float64), digits).tolist()


def _array(fields: Fields, key: str, shape: tuple[int, ...], low: float, high: float) -> NDArray[np.float32]:
    """The (nested) list at ``key`` as an array of ``shape`` with values in ``low``..``high``."""
    values = _numbers(fields.get(key), fields.path(key), shape, low, high)
    return np.array(values, np.float32).reshape(shape)


def _numbers(values: object, where: str, shape: tuple[int, ...], low: float, high: float) -> list[Any]:
    if not isinstance(values, list) or len(values) != shape[0]:
        raise BundleError(f"{where} must be a list of {shape[0]} entries")
    if len(shape) == 1:
        return [number(value, f"{where}[{i}]", low, high) for i, value in enumerate(values)]
    return [_numbers(value, f"{where}[{i}]", shape[1:], low, high) for i, value in enumerate(values)]
