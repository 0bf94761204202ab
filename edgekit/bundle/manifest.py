"""``bundle.json`` of a detector: what it says besides every bundle's head, and the strict check of every field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgekit.bundle.fields import Fields, number, short
from edgekit.bundle.head import FORMAT as FORMAT
from edgekit.bundle.head import GRAPH_FORMATS as GRAPH_FORMATS
from edgekit.bundle.head import HEAD_KEYS, OPTIONAL_KEYS, Head, read_head, repeated
from edgekit.bundle.head import NAME as NAME
from edgekit.bundle.head import PRECISIONS as PRECISIONS
from edgekit.bundle.head import VERSION as VERSION
from edgekit.bundle.listed import Golden, read_golden
from edgekit.bundle.sparse_part import NATIVE, REGION_ENGINES, SparsePart, program_precision, read_sparse_part
from edgekit.errors import BundleError
from edgekit.masks.pyramid import mask_at
from edgekit.models.pvanet_rois import STRIDE
from edgekit.spec import TOKEN_STRIDES, DetectorSpec, Detr, TwoStage

MAX_ANCHORS = 1_000_000
MAX_PROPOSALS = 10_000
MAX_QUERIES = 10_000

TASK = "detection"

_KEYS = (*HEAD_KEYS, *OPTIONAL_KEYS, "sparse")
"""``sparse``: sparse programs beside dense graphs (``edgekit.bundle.sparse_part``)."""


@dataclass(frozen=True, kw_only=True)
class Manifest(Head):
    """A ``bundle.json`` in which every field has been checked."""

    spec: DetectorSpec
    golden: Golden
    macs: Mapping[str, int]
    """Multiply-accumulates of one frame without a mask: ``dense`` (the detector) and ``omg``."""

    sparse: SparsePart | None = None
    """Sparse programs beside the dense graphs."""

    @property
    def choices(self) -> tuple[str, ...]:
        """What ``--engine`` takes for this bundle, best first."""
        if self.sparse is None:
            return self.engines
        return (NATIVE, *self.engines, REGION_ENGINES[self.graph_format])

    def graphs_of(self, engine: str) -> Mapping[str, str]:
        """Graph name (of ``spec.graphs``) -> path of the file that ``engine``, one of the choices, runs."""
        if self.sparse is None or engine in self.engines:
            return self.graphs
        return self.sparse.programs if engine == NATIVE else self.sparse.regions

    def precision_of(self, engine: str) -> str:
        """Precision of what ``engine``, one of the choices, runs."""
        return self.precision if engine in self.engines else program_precision(self.precision)

    def golden_of(self, engine: str) -> Golden:
        """What ``engine``, one of the choices, must make of the golden input."""
        return self.golden if self.sparse is None or engine in self.engines else self.sparse.golden


def read_detection(document: object, where: str = NAME) -> Manifest:
    """Check a parsed ``bundle.json`` of a detector, whose format, version and task are known.

    Raises:
        BundleError: a field is missing, unknown, of the wrong type or out of range; the message names it.
        BundlePathError: a path leads outside the bundle.
        BundleIntegrityError: a path names a file that ``files`` does not list.
    """
    root = Fields(document, where, _KEYS)
    spec = read_spec(root.get("spec"), root.path("spec"))
    head = read_head(root, spec.graphs)
    graph_format, files = head["graph_format"], head["files"]
    return Manifest(
        **head,
        spec=spec,
        golden=read_golden(root.child("golden", Golden.__dataclass_fields__), files),
        macs=_macs(root.child("macs")),
        sparse=read_sparse_part(
            root,
            graphs=spec.sparse_graphs,
            graph_format=graph_format,
            suffix=GRAPH_FORMATS[graph_format][0],
            engines=head["engines"],
            files=files,
        )
        if "sparse" in root.value
        else None,
    )


def read_spec(value: object, where: str = "spec") -> DetectorSpec:
    """Check the JSON of a :class:`DetectorSpec`; raises :class:`BundleError` naming the field."""
    root = Fields(value, where, DetectorSpec.__dataclass_fields__)
    root.text("model", r"[\w.-]{1,100}", "a model name")
    classes = root.texts("classes", least=1, most=10_000)
    if len(set(classes)) != len(classes):
        raise BundleError(f"{root.path('classes')}: the name {repeated(classes)!r} appears twice")
    for side in ("height", "width"):
        root.integer(side, 1, 8192)
    root.number("mean", -1e6, 1e6)
    for key in ("std", "centre_variance", "size_variance"):
        root.number(key, 1e-9, 1e6)
    for key in ("score_threshold", "nms_iou", "vote_iou", "mask_threshold"):
        root.number(key, 0, 1)
    root.number("mask_threshold_exponent", 0, 100)
    root.integer("max_detections", 1, 100_000)
    grid = _mask_grid(root)
    root.integer("mask_dilation", 0, max(grid))
    if root.value.get("width_multiplier") is not None:
        root.number("width_multiplier", 1e-3, 100)
    if root.value.get("detr") is not None:
        _check_detr(root.child("detr", Detr.__dataclass_fields__), root, grid)
    else:
        _check_anchors(root, grid)
    if root.value.get("two_stage") is not None:
        _check_two_stage(root.child("two_stage", TwoStage.__dataclass_fields__), root)
    return DetectorSpec.from_json(root.value)


def _mask_grid(spec: Fields) -> tuple[int, int]:
    """Rows and columns; one number is both."""
    value = spec.get("mask_grid")
    sides = [value, value] if type(value) is int else value
    if not isinstance(sides, list | tuple) or len(sides) != 2 or not all(type(side) is int for side in sides):
        raise BundleError(f"{spec.path('mask_grid')} must be [rows, columns], got {short(value)}")
    rows, columns = (number(side, spec.path("mask_grid"), 1, 1024) for side in sides)
    return int(rows), int(columns)


def _check_anchors(spec: Fields, grid: tuple[int, int]) -> None:
    levels = spec.items("anchors", most=32)
    anchors = 0
    for i, entry in enumerate(levels):
        level = Fields(entry, f"{spec.path('anchors')}[{i}]", ("rows", "columns", "sizes"))
        rows, columns = level.integer("rows", 1, 8192), level.integer("columns", 1, 8192)
        sizes = level.items("sizes", most=100)
        for j, size in enumerate(sizes):
            if not isinstance(size, list | tuple) or len(size) != 2:
                raise BundleError(f"{level.path('sizes')}[{j}] must be [width, height], got {short(size)}")
            for side in size:
                number(side, f"{level.path('sizes')}[{j}]", 1e-6, 1e6)
        anchors += rows * columns * len(sizes)
        if anchors > MAX_ANCHORS:
            raise BundleError(f"{spec.path('anchors')} are more than {MAX_ANCHORS} in all")
        try:
            mask_at(np.ones(grid, np.bool_), rows=rows, columns=columns)
        except ValueError as error:
            raise BundleError(f"{level.where} does not fit mask_grid: {error}") from error
    if not anchors:
        raise BundleError(f"{spec.path('anchors')} must have at least one anchor, got none")


def _check_detr(fields: Fields, spec: Fields, grid: tuple[int, int]) -> None:
    fields.integer("queries", 1, MAX_QUERIES)
    if fields.value.get("token_share") is not None:
        fields.number("token_share", 1e-9, 1)
    if spec.items("anchors", most=32) or spec.value.get("two_stage") is not None:
        raise BundleError(f"{fields.where}: a DETR has neither anchors nor two_stage")
    for stride in TOKEN_STRIDES:
        rows, columns = (-(-spec.integer(side, 1, 8192) // stride) for side in ("height", "width"))
        try:
            mask_at(np.ones(grid, np.bool_), rows=rows, columns=columns)
        except ValueError as error:
            raise BundleError(f"{fields.where}: tokens of {stride} pixels do not fit mask_grid: {error}") from error


def _check_two_stage(fields: Fields, spec: Fields) -> None:
    fields.integer("before_nms", 1, MAX_ANCHORS)
    fields.integer("proposals", 1, MAX_PROPOSALS)
    fields.number("nms_iou", 0, 1)
    fields.number("smallest", 0, 8192)
    levels = spec.items("anchors", most=32)
    cells = (spec.integer("height", STRIDE, 8192) // STRIDE, spec.integer("width", STRIDE, 8192) // STRIDE)
    if [(level["rows"], level["columns"]) for level in levels] != [cells] or _mask_grid(spec) != cells:
        raise BundleError(
            f"{fields.where}: regions are proposed in cells of {STRIDE} pixels, so anchors must be one level of "
            f"{cells[0]}x{cells[1]}, and mask_grid the same"
        )


def _macs(fields: Fields) -> dict[str, int]:
    for required in ("dense", "omg"):
        fields.get(required)
    return {key: fields.integer(key, 0, 10**15) for key in fields.value}
