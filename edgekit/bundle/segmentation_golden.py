"""The self-test of a segmenter's bundle: a recorded picture, its masks, and a comparison on the machine at hand.

``golden_input.png`` is a picture of the input's size. ``golden_output.json`` has ``masks``: for each of the
first prompts its scores, rows by columns, as 16-bit numbers (0..65535 for 0..1, little-endian, in base64). Labels are
compared as they follow from these masks.

N prompts, h x w a map's size.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.fields import Fields, parse_json
from edgekit.bundle.golden_files import INPUT, OUTPUT, read_picture
from edgekit.bundle.reading import SegmentationBundle
from edgekit.bundle.segmentation_manifest import SegmentationTolerance
from edgekit.bundle.trying import try_engines
from edgekit.bundle.writing import BundleWriter
from edgekit.data.picture_file import encode_png
from edgekit.data.resize import resize_into
from edgekit.errors import BundleError
from edgekit.segmentation.fitting import Fitted, fit, input_tensor
from edgekit.segmentation.pipeline import SegmentationPipeline, label, own_prompts, segmenter_of
from edgekit.segmentation.scores import masks

PROMPTS = 16
"""Masks of so many prompts are recorded: what goes wrong on another machine goes wrong in all of them."""

STEPS = 65535

TOLERANCES = {
    "fp32": SegmentationTolerance(score=0.002, pixels=0.002),
    "fp16": SegmentationTolerance(score=0.03, pixels=0.02),
    "int8": SegmentationTolerance(score=0.15, pixels=0.08),
}
"""Between two engines running the same graph: float32 sums differ in their order, half precision in its rounding, and
an int8 kernel may be off by a quantum in each layer."""


@dataclass(frozen=True, kw_only=True)
class SegmentationCheck:
    """How one engine reproduced the golden output."""

    engine: str
    status: str
    """``passed``, ``failed``, ``error`` (it could not run) or ``not installed``."""

    detail: str
    """The engine with its version, or why it did not run."""

    tolerance: SegmentationTolerance
    """What it may differ by."""

    score: float = 0.0
    """Largest difference of a cell's score."""

    pixels: float = 0.0
    """Share (0..1) of the pixels that have another label."""


@dataclass(frozen=True, kw_only=True)
class SegmentationVerifyReport:
    """The self-test of one bundle on this machine."""

    name: str
    tolerance: SegmentationTolerance
    labelled: float
    """Share (0..1) of the golden picture that is not background, by the recorded masks."""

    checks: tuple[SegmentationCheck, ...]

    @property
    def passed(self) -> bool:
        """Whether at least one engine ran, and every one that is installed agreed."""
        ran = [check for check in self.checks if check.status != "not installed"]
        return bool(ran) and all(check.status == "passed" for check in ran)

    def lines(self) -> list[str]:
        """For people."""
        lines = [
            f"{self.name}: hashes match, {100 * self.labelled:.1f} % of the recorded picture is not background",
            "",
            f"{'engine':<20}{'result':<16}{'score':>9}{'pixels':>11}",
            f"{'allowed':<36}{self.tolerance.score:>9.4f}{100 * self.tolerance.pixels:>9.2f} %",
        ]
        for check in self.checks:
            head = f"{check.engine:<20}{check.status:<16}"
            if check.status in ("passed", "failed"):
                lines.append(f"{head}{check.score:>9.4f}{100 * check.pixels:>9.2f} %  {check.detail}")
            else:
                lines.append(f"{head}{check.detail.splitlines()[0]}")
        return lines

    def to_json(self) -> dict[str, Any]:
        """A dictionary that ``json`` can write."""
        return {**asdict(self), "passed": self.passed}


def write_segmentation_golden(
    writer: BundleWriter, pipeline: SegmentationPipeline, image_rgb: NDArray[np.uint8], *, precision: str
) -> dict[str, Any]:
    """Record what ``pipeline``, on the exported graph, makes of ``image_rgb`` [h, w, 3]; the section ``golden``."""
    picture = np.empty((pipeline.spec.height, pipeline.spec.width, 3), np.uint8)
    resize_into(image_rgb, picture)
    found = np.round(_masks(pipeline, fit(picture, pipeline.spec)) * STEPS).astype("<u2")
    encoded = [base64.b64encode(mask.tobytes()).decode() for mask in found[:PROMPTS]]
    writer.add_bytes(INPUT, encode_png(picture))
    writer.add_bytes(OUTPUT, json.dumps({"masks": encoded}).encode())
    return {"input": INPUT, "output": OUTPUT, "tolerance": TOLERANCES[precision].to_json()}


def verify_segmentation(
    bundle: SegmentationBundle, engine: str | None = None, *, threads: int = 1
) -> SegmentationVerifyReport:
    """Run the golden input through ``engine``, or through every one that is installed and has graphs in the bundle.

    Raises:
        BundleError, PromptsError: the prompts or its golden files are malformed.
        MissingDependencyError: ``engine``, or every engine of the bundle, is not installed.
        EngineError: ``engine`` cannot run the bundle; without ``engine`` that is part of the report.
        UsageError: the bundle does not run on ``engine``.
    """
    manifest, limits = bundle.manifest, bundle.manifest.golden.tolerance
    fitted, recorded = fit(read_picture(bundle, manifest.golden), manifest.spec), _read_masks(bundle)
    expected = _labels(recorded, fitted, bundle)

    def check(name: str) -> SegmentationCheck:
        pipeline = segmenter_of(bundle, engine=name, threads=threads)
        found = _masks(pipeline, fitted)[: len(recorded)]
        one = SegmentationCheck(
            engine=name,
            status="passed",
            detail=pipeline.engine_name,
            tolerance=limits,
            score=float(np.abs(found - recorded).max()),
            pixels=float((_labels(found, fitted, bundle) != expected).mean()),
        )
        return one if one.score <= limits.score and one.pixels <= limits.pixels else replace(one, status="failed")

    def unable(name: str, status: str, detail: str) -> SegmentationCheck:
        return SegmentationCheck(engine=name, status=status, detail=detail, tolerance=limits)

    checks = (check(engine),) if engine is not None else try_engines(manifest.choices, check, unable)
    return SegmentationVerifyReport(
        name=manifest.name, tolerance=limits, labelled=float((expected > 0).mean()), checks=checks
    )


def _masks(pipeline: SegmentationPipeline, fitted: Fitted) -> NDArray[np.float32]:
    image = input_tensor(fitted, pipeline.spec)
    return masks(pipeline.spec, pipeline.run(image), pipeline.prompts.embeddings, image)


def _labels(found: NDArray[np.float32], fitted: Fitted, bundle: SegmentationBundle) -> NDArray[np.uint8]:
    height, width = fitted.image.shape[:2]
    return label(found, fitted, bundle.manifest.spec, height=height, width=width)[0]


def _read_masks(bundle: SegmentationBundle) -> NDArray[np.float32]:
    """[N, rows, columns] in 0..1."""
    spec, name = bundle.manifest.spec, bundle.manifest.golden.output
    root = Fields(parse_json(bundle.file(name).read_bytes(), name), name, ("masks",))
    entries, expected = root.items("masks", most=PROMPTS), min(PROMPTS, len(own_prompts(bundle)))
    if len(entries) != expected:
        raise BundleError(f"{root.path('masks')} must be {expected} masks, got {len(entries)}")
    where = root.path("masks")
    return np.stack([_mask(entry, f"{where}[{k}]", spec.rows, spec.columns) for k, entry in enumerate(entries)])


def _mask(entry: object, where: str, rows: int, columns: int) -> NDArray[np.float32]:
    try:
        data = base64.b64decode(entry, validate=True) if isinstance(entry, str) else b""
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != 2 * rows * columns:
        raise BundleError(f"{where} must be base64 of {rows}x{columns} numbers of 2 bytes")
    return np.frombuffer(data, "<u2").reshape(rows, columns).astype(np.float32) / np.float32(STEPS)
