"""The self-test of a bundle: a recorded input, what it gave, and a comparison on the machine at hand.

The three steps are compared one by one, so that a difference is reported where it arises: objectness of every cell, the
mask, and the detections behind the *recorded* mask.

``golden_output.json``: ``objectness`` G rows of G probabilities; ``mask`` G strings of 0 and 1; ``detections`` with
``boxes_xyxy`` (input pixels), ``scores`` and ``class_ids``, down to half the score threshold, so that a score that
moves across the threshold finds its partner; ``tensors`` a summary of the raw class logits and box offsets, for people.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekit.boxes import iou_matrix
from edgekit.bundle.fields import Fields, number, parse_json
from edgekit.bundle.manifest import Tolerance
from edgekit.bundle.reading import Bundle, open_bundle
from edgekit.bundle.writing import BundleWriter
from edgekit.data.letterbox import letterbox
from edgekit.detections import Detections
from edgekit.errors import BundleError, BundleIntegrityError, EngineError, MissingDependencyError
from edgekit.masks.pyramid import Mask
from edgekit.masks.sources import MaskInput, omg
from edgekit.spec import DetectorSpec

if TYPE_CHECKING:
    from edgekit.pipeline import Pipeline

INPUT, OUTPUT = "golden_input.png", "golden_output.json"

TOLERANCES = {
    "fp32": Tolerance(objectness=0.002, mask_cells=1, score=0.002, box_px=0.25),
    "fp16": Tolerance(objectness=0.02, mask_cells=3, score=0.02, box_px=1.0),
    "int8": Tolerance(objectness=0.08, mask_cells=12, score=0.08, box_px=6.0),
}
"""Between two engines running the same graph: float32 sums differ in their order, half precision in its rounding, and
an int8 kernel may be off by a quantum in each layer."""


@dataclass(frozen=True, kw_only=True)
class EngineCheck:
    """How one engine reproduced the golden output."""

    engine: str
    status: str
    """``passed``, ``failed``, ``error`` (it could not run) or ``not installed``."""

    detail: str
    """The engine with its version, or why it did not run."""

    objectness: float = 0.0
    """Largest difference of a cell's objectness."""

    mask_cells: int = 0
    """Cells of the mask that differ."""

    score: float = 0.0
    """Largest difference of a matched score."""

    box_px: float = 0.0
    """Largest difference of a matched box side, in input pixels."""

    unmatched: int = 0
    """Detections over the threshold without a partner, on either side."""


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """The self-test of one bundle on this machine."""

    name: str
    tolerance: Tolerance
    detections: int
    """How many detections over the threshold were recorded."""

    checks: tuple[EngineCheck, ...]

    @property
    def passed(self) -> bool:
        """Whether at least one engine ran, and every one that is installed agreed."""
        ran = [check for check in self.checks if check.status != "not installed"]
        return bool(ran) and all(check.status == "passed" for check in ran)

    def to_json(self) -> dict[str, Any]:
        """A dictionary that ``json`` can write."""
        return {**asdict(self), "passed": self.passed}


@dataclass(frozen=True, kw_only=True)
class _Output:
    """One run of the golden input."""

    objectness: NDArray[np.float32]
    """[G, G] in 0..1."""
    mask: Mask
    """[G, G] by the OMG network."""
    detections: Detections
    """Over half the score threshold, in input pixels."""
    tensors: dict[str, dict[str, Any]]
    """Name -> statistics of a raw output."""


def write_golden(
    writer: BundleWriter, pipeline: Pipeline, image_rgb: NDArray[np.uint8], *, precision: str
) -> dict[str, Any]:
    """Record what ``pipeline`` makes of ``image_rgb`` [h, w, 3], and return the manifest's ``golden`` section.

    Use the pipeline of the exported graphs on this machine, not the float model: the test is whether another machine
    runs these graphs in the same way.
    """
    import cv2

    spec = pipeline.spec
    picture = letterbox(image_rgb, height=spec.height, width=spec.width).image
    output = _run(pipeline, picture, None)
    found = output.detections
    document = {
        "objectness": [[round(float(value), 5) for value in row] for row in output.objectness],
        "mask": ["".join("01"[int(cell)] for cell in row) for row in output.mask],
        "detections": {
            "boxes_xyxy": [[round(float(side), 3) for side in box] for box in found.boxes_xyxy],
            "scores": [round(float(score), 5) for score in found.scores],
            "class_ids": found.class_ids.tolist(),
        },
        "tensors": output.tensors,
    }
    encoded, png = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    assert encoded
    writer.add_bytes(INPUT, png.tobytes())
    writer.add_bytes(OUTPUT, json.dumps(document).encode())
    return {"input": INPUT, "output": OUTPUT, "tolerance": asdict(TOLERANCES[precision])}


def verify_bundle(path: str | Path, engine: str | None = None, *, threads: int = 1) -> VerifyReport:
    """Run the golden input through ``engine``, or through every engine of the bundle that is installed.

    Raises:
        BundleError: the bundle or its golden files are malformed.
        MissingDependencyError: ``engine``, or every engine of the bundle, is not installed.
        EngineError: ``engine`` cannot run the bundle; without ``engine`` that is part of the report.
        UsageError: the bundle does not run on ``engine``.
    """
    bundle = open_bundle(path)
    picture = _read_picture(bundle)
    expected = _read_output(bundle)
    if engine is not None:
        checks = [_check(bundle, engine, picture, expected, threads)]
    else:
        checks = [_try(bundle, name, picture, expected, threads) for name in bundle.manifest.engines]
        if all(check.status == "not installed" for check in checks):
            _check(bundle, bundle.manifest.engines[0], picture, expected, threads)  # raises what is missing
    recorded = expected.detections.scores >= bundle.manifest.spec.score_threshold
    return VerifyReport(
        name=bundle.manifest.name,
        tolerance=bundle.manifest.golden.tolerance,
        detections=int(np.count_nonzero(recorded)),
        checks=tuple(checks),
    )


def _try(bundle: Bundle, engine: str, picture: NDArray[np.uint8], expected: _Output, threads: int) -> EngineCheck:
    try:
        return _check(bundle, engine, picture, expected, threads)
    except MissingDependencyError as error:
        return EngineCheck(engine=engine, status="not installed", detail=str(error))
    except EngineError as error:
        return EngineCheck(engine=engine, status="error", detail=str(error))


def _check(bundle: Bundle, engine: str, picture: NDArray[np.uint8], expected: _Output, threads: int = 1) -> EngineCheck:
    from edgekit.pipeline import pipeline_of

    pipeline = pipeline_of(bundle, engine=engine, threads=threads)
    found = _run(pipeline, picture, expected.mask)
    limits = bundle.manifest.golden.tolerance
    objectness = float(np.abs(found.objectness - expected.objectness).max())
    cells = int(np.count_nonzero(found.mask != expected.mask))
    score, box_px, unmatched = _compare(
        expected.detections, found.detections, bundle.manifest.spec.score_threshold, limits
    )
    good = (
        objectness <= limits.objectness
        and cells <= limits.mask_cells
        and score <= limits.score
        and box_px <= limits.box_px
        and not unmatched
    )
    return EngineCheck(
        engine=engine,
        status="passed" if good else "failed",
        detail=pipeline.engine_name,
        objectness=objectness,
        mask_cells=cells,
        score=score,
        box_px=box_px,
        unmatched=unmatched,
    )


def _run(pipeline: Pipeline, picture: NDArray[np.uint8], mask: Mask | None) -> _Output:
    """Run ``picture`` [H, W, 3]; the detector sees ``mask``, or the one of the OMG network where that is None."""
    from edgekit.pipeline import postprocess

    spec = pipeline.spec
    letterboxed = letterbox(picture, height=spec.height, width=spec.width)
    image = pipeline.input_tensor(letterboxed)
    objectness = pipeline.objectness(image)
    own = omg(MaskInput(letterboxed=letterboxed, spec=spec, objectness=lambda: objectness))
    seen = own if mask is None else mask
    logits, offsets = pipeline.detect(image, seen)
    return _Output(
        objectness=objectness,
        mask=own,
        detections=postprocess(spec, logits, offsets, seen, letterboxed, spec.score_threshold / 2),
        tensors={"class_logits": _summary(logits), "box_offsets": _summary(offsets)},
    )


def _compare(expected: Detections, found: Detections, threshold: float, limits: Tolerance) -> tuple[float, float, int]:
    """Largest score and box difference of pairs, and how many sure detections have no partner.

    Detections within the score tolerance of ``threshold`` may come and go, but must agree where they are.
    """
    forth = _match(expected, found, threshold + limits.score)
    back = _match(found, expected, threshold + limits.score)
    return max(forth[0], back[0]), max(forth[1], back[1]), forth[2] + back[2]


def _match(one: Detections, other: Detections, threshold: float) -> tuple[float, float, int]:
    """For each detection of ``one`` over ``threshold``, the box of its class in ``other`` that overlaps it most."""
    score = box_px = 0.0
    unmatched = 0
    overlaps = iou_matrix(one.boxes_xyxy, other.boxes_xyxy)
    overlaps[one.class_ids[:, None] != other.class_ids[None, :]] = 0
    for i in np.flatnonzero(one.scores >= threshold):
        if not len(other) or overlaps[i].max() < 0.5:
            unmatched += 1
            continue
        j = int(overlaps[i].argmax())
        score = max(score, abs(float(one.scores[i] - other.scores[j])))
        box_px = max(box_px, float(np.abs(one.boxes_xyxy[i] - other.boxes_xyxy[j]).max()))
    return score, box_px, unmatched


def _summary(values: NDArray[np.float32]) -> dict[str, Any]:
    return {
        "shape": list(values.shape),
        "mean": round(float(values.mean()), 6),
        "std": round(float(values.std()), 6),
        "min": round(float(values.min()), 6),
        "max": round(float(values.max()), 6),
    }


def _read_picture(bundle: Bundle) -> NDArray[np.uint8]:
    """The golden input [H, W, 3] RGB."""
    import cv2

    spec, name = bundle.manifest.spec, bundle.manifest.golden.input
    data = bundle.file(name).read_bytes()
    # The size is checked in the header: decoding first would let a small file ask for gigabytes.
    size = struct.unpack(">II", data[16:24]) if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) >= 24 else None
    if size != (spec.width, spec.height):
        raise BundleIntegrityError(f"{name} must be a PNG of {spec.width}x{spec.height} pixels, got {size or 'no PNG'}")
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise BundleIntegrityError(f"{name} is a damaged PNG; copy the bundle again")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def _read_output(bundle: Bundle) -> _Output:
    """The golden output, checked field by field."""
    name, spec = bundle.manifest.golden.output, bundle.manifest.spec
    root = Fields(parse_json(bundle.file(name).read_bytes(), name), name)
    grid = spec.mask_grid
    rows = root.texts("mask", least=1)
    if len(rows) != grid or any(len(row) != grid or set(row) - {"0", "1"} for row in rows):
        raise BundleError(f"{root.path('mask')} must be {grid} rows of {grid} characters 0 and 1")
    return _Output(
        objectness=_numbers(root.items("objectness", most=grid), root.path("objectness"), (grid, grid), 0, 1),
        mask=np.array([[cell == "1" for cell in row] for row in rows], np.bool_),
        detections=_read_detections(root.child("detections"), spec),
        tensors=root.mapping("tensors"),
    )


def _read_detections(fields: Fields, spec: DetectorSpec) -> Detections:
    scores = fields.items("scores", most=spec.max_detections)
    count = len(scores)
    side = max(spec.height, spec.width)
    boxes = _numbers(fields.items("boxes_xyxy", most=count), fields.path("boxes_xyxy"), (count, 4), 0, side)
    classes = fields.items("class_ids", most=count)
    return Detections(
        boxes_xyxy=boxes,
        scores=_numbers(scores, fields.path("scores"), (count,), 0, 1),
        class_ids=_numbers(classes, fields.path("class_ids"), (count,), 0, len(spec.classes) - 1).astype(np.int64),
    )


def _numbers(values: object, where: str, shape: tuple[int, ...], low: float, high: float) -> NDArray[np.float32]:
    """Nested lists of numbers as an array of ``shape``."""
    if not isinstance(values, list) or len(values) != shape[0]:
        raise BundleError(f"{where} must be a list of {shape[0]} entries")
    if len(shape) == 1:
        return np.array([number(value, f"{where}[{i}]", low, high) for i, value in enumerate(values)], np.float32)
    rows = [_numbers(value, f"{where}[{i}]", shape[1:], low, high) for i, value in enumerate(values)]
    return np.array(rows, np.float32).reshape(shape)
