"""The self-test of a bundle: a recorded input, what it gave, and a comparison on the machine at hand.

The steps are compared one by one, so that a difference is reported where it arises: the objectness of every cell, the
mask, then, behind the *recorded* mask, the scores and boxes of the recorded candidates, and the final detections.
Scores and boxes are compared before suppression, because it may pick another of two nearly equal boxes.

A detector that proposes regions classifies the recorded ones; what it proposes itself shows in the detections.

G mask grid, R regions, K candidates.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekit import decoding
from edgekit.boxes import Boxes, iou_matrix
from edgekit.bundle.golden_files import (
    INPUT,
    OUTPUT,
    Recording,
    encode_recording,
    read_picture,
    read_recording,
)
from edgekit.bundle.listed import Tolerance
from edgekit.bundle.reading import Bundle, open_bundle
from edgekit.bundle.trying import try_engines
from edgekit.bundle.writing import BundleWriter
from edgekit.data.letterbox import letterbox
from edgekit.data.picture_file import encode_png
from edgekit.decoding import Candidates
from edgekit.detections import Detections
from edgekit.errors import BundleError
from edgekit.masks.pyramid import Mask
from edgekit.masks.sources import MaskInput, omg

if TYPE_CHECKING:
    from edgekit.pipeline import Pipeline

CANDIDATES = 32
"""How many of the best pairs of an anchor, or a region, and a class are recorded."""

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

    tolerance: Tolerance
    """What it may differ by."""

    objectness: float = 0.0
    """Largest difference of a cell's objectness."""

    mask_cells: int = 0
    """Cells of the mask that differ."""

    score: float = 0.0
    """Largest difference of a candidate's score."""

    box_px: float = 0.0
    """Largest difference of a side of a candidate's box, in input pixels."""

    unmatched: int = 0
    """Detections over the threshold that no detection of the other side overlaps."""


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """The self-test of one bundle on this machine."""

    name: str
    tolerance: Tolerance
    """Of the dense graphs, or of all where the bundle has one kind."""

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
class _Run:
    """One run of the golden input."""

    objectness: NDArray[np.float32]
    """[G, G] in 0..1."""

    mask: Mask
    """[G, G] by the OMG network."""

    candidates: Candidates
    """Behind the mask that the detector saw; of the recorded regions, where there are any."""

    rois: Boxes | None
    """[R, 4] what a two-stage detector proposed by itself."""

    detections: Detections
    """Over half the score threshold, in input pixels."""


def write_golden(
    writer: BundleWriter, pipeline: Pipeline, image_rgb: NDArray[np.uint8], *, precision: str, output: str = OUTPUT
) -> dict[str, Any]:
    """Record what ``pipeline`` makes of ``image_rgb`` [h, w, 3] as the file ``output``; return a section ``golden``.

    Use the pipeline of the exported graphs on this machine, not the float model: the test is whether another machine
    runs these graphs in the same way. Choose a picture with objects of several sizes.
    """
    spec = pipeline.spec
    picture = letterbox(image_rgb, height=spec.height, width=spec.width).image
    run = _run(pipeline, picture, None)
    found = run.candidates
    best = np.argsort(-found.scores, axis=None, kind="stable")[:CANDIDATES]
    rows, classes = np.unravel_index(best, found.scores.shape)
    recording = Recording(
        objectness=run.objectness,
        mask=run.mask,
        anchors=found.places[rows] if run.rois is None else None,
        rois=None if run.rois is None else run.rois[rows],
        class_ids=classes,
        scores=found.scores[rows, classes],
        boxes=found.box_of(rows, classes),
        detections=run.detections,
    )
    writer.add_bytes(INPUT, encode_png(picture))
    writer.add_bytes(output, encode_recording(recording))
    return {"input": INPUT, "output": output, "tolerance": asdict(TOLERANCES[precision])}


def verify_bundle(path: str | Path | Bundle, engine: str | None = None, *, threads: int = 1) -> VerifyReport:
    """Run the golden input through ``engine``, or through every one that is installed and has graphs in the bundle.

    Raises:
        BundleError: the bundle or its golden files are malformed.
        MissingDependencyError: ``engine``, or every engine of the bundle, is not installed.
        EngineError, SparseProgramError: ``engine`` cannot run the bundle; without ``engine`` that is part of the
            report.
        UsageError: the bundle does not run on ``engine``.
    """
    bundle = path if isinstance(path, Bundle) else open_bundle(path)
    recording = read_recording(bundle, bundle.manifest.golden)
    if engine is not None:
        checks = [_check(bundle, engine, threads)]
    else:
        unable = functools.partial(_unable, bundle)
        checks = list(try_engines(bundle.manifest.choices, lambda name: _check(bundle, name, threads), unable))
    recorded = recording.detections.scores >= bundle.manifest.spec.score_threshold
    return VerifyReport(
        name=bundle.manifest.name,
        tolerance=bundle.manifest.golden.tolerance,
        detections=int(np.count_nonzero(recorded)),
        checks=tuple(checks),
    )


def _unable(bundle: Bundle, engine: str, status: str, detail: str) -> EngineCheck:
    limits = bundle.manifest.golden_of(engine).tolerance
    return EngineCheck(engine=engine, status=status, detail=detail, tolerance=limits)


def _check(bundle: Bundle, engine: str, threads: int) -> EngineCheck:
    from edgekit.pipeline import pipeline_of

    pipeline = pipeline_of(bundle, engine=engine, threads=threads)
    golden = bundle.manifest.golden_of(engine)
    recording, limits = read_recording(bundle, golden), golden.tolerance
    run = _run(pipeline, read_picture(bundle, golden), recording)
    found, classes = run.candidates, recording.class_ids
    detr = bundle.manifest.spec.kind == "detr"
    rows = _nearest_rows(recording, found) if detr else _rows_of(recording, found, golden.output)
    sure = bundle.manifest.spec.score_threshold + limits.score
    check = EngineCheck(
        engine=engine,
        status="passed",
        detail=pipeline.engine_name,
        tolerance=limits,
        objectness=_largest(run.objectness - recording.objectness),
        mask_cells=int(np.count_nonzero(run.mask != recording.mask)),
        score=_largest(found.scores[rows, classes] - recording.scores),
        box_px=_largest(found.box_of(rows, classes) - recording.boxes),
        unmatched=_unmatched(recording.detections, run.detections, sure)
        + _unmatched(run.detections, recording.detections, sure),
    )
    return check if _within(check, limits) else replace(check, status="failed")


def _rows_of(recording: Recording, found: Candidates, where: str) -> NDArray[np.int64]:
    """[K] the rows of ``found`` that were recorded: its places ascend, and recorded regions are all that it has."""
    if recording.anchors is None:
        return np.arange(len(recording.class_ids))
    rows = np.minimum(np.searchsorted(found.places, recording.anchors), len(found.places) - 1)
    if not np.array_equal(found.places[rows], recording.anchors):
        raise BundleError(
            f"{where}: candidates.anchors has one that the recorded mask leaves out; copy the bundle again"
        )
    return rows


def _nearest_rows(recording: Recording, found: Candidates) -> NDArray[np.int64]:
    """[K] the queries of ``found`` that are most like those recorded; their order is an accident of engines."""
    boxes = np.abs(found.boxes[:, 0][None] - recording.boxes[:, None]).max(axis=2)  # [K, N], pixels
    scores = np.abs(found.scores.T[recording.class_ids] - recording.scores[:, None])
    distance = boxes / max(1.0, float(boxes.max(initial=0))) + scores
    return np.asarray(distance.argmin(axis=1), np.int64)


def _run(pipeline: Pipeline, picture: NDArray[np.uint8], recording: Recording | None) -> _Run:
    """Run ``picture`` [H, W, 3]; the detector sees the recorded mask, or the one of the OMG network where that is None.

    An empty mask would leave the detector untested, so then it sees everything.
    """

    spec = pipeline.spec
    letterboxed = letterbox(picture, height=spec.height, width=spec.width)
    image = pipeline.input_tensor(letterboxed)
    objectness = pipeline.objectness(image)
    own = omg(MaskInput(letterboxed=letterboxed, spec=spec, objectness=lambda: objectness))
    seen = own if recording is None else recording.mask
    seen = seen if seen.any() else np.ones_like(seen)
    raw = pipeline.detect(image, seen)
    # Proposals that two engines rank differently would compare one region with another.
    again = raw if recording is None or recording.rois is None else pipeline.detect(image, seen, rois=recording.rois)
    return _Run(
        objectness=objectness,
        mask=own,
        candidates=decoding.candidates(spec, again, seen),
        rois=raw.get("rois"),
        detections=decoding.detections(spec, raw, seen, letterboxed, spec.score_threshold / 2),
    )


def _largest(difference: NDArray[np.float32]) -> float:
    return float(np.abs(difference).max(initial=0))


def _unmatched(one: Detections, other: Detections, sure: float) -> int:
    """How many detections of ``one`` scoring ``sure`` or more no detection of their class in ``other`` overlaps."""
    overlaps = iou_matrix(one.boxes_xyxy, other.boxes_xyxy)
    overlaps[one.class_ids[:, None] != other.class_ids[None, :]] = 0
    best = overlaps.max(axis=1, initial=0)
    return int(np.count_nonzero((one.scores >= sure) & (best < 0.5)))


def _within(check: EngineCheck, limits: Tolerance) -> bool:
    return (
        check.objectness <= limits.objectness
        and check.mask_cells <= limits.mask_cells
        and check.score <= limits.score
        and check.box_px <= limits.box_px
        and not check.unmatched
    )
