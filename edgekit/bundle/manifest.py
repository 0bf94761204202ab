"""``bundle.json``: what it says, and the strict check of every field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.bundle.fields import Fields, number, short
from edgekit.bundle.listed import FileEntry, Golden, read_golden, read_graphs
from edgekit.bundle.paths import check_distinct, check_path
from edgekit.bundle.sparse_part import NATIVE, REGION_ENGINES, SparsePart, program_precision, read_sparse_part
from edgekit.errors import BundleError
from edgekit.masks.pyramid import mask_at
from edgekit.models.pvanet_rois import STRIDE
from edgekit.spec import TOKEN_STRIDES, DetectorSpec, Detr, TwoStage

FORMAT = "edgekit-bundle"
VERSION = 1
NAME = "bundle.json"

GRAPH_FORMATS = {
    "onnx": (".onnx", ("onnxruntime", "openvino")),
    "tflite": (".tflite", ("tflite",)),
    "openvino": (".xml", ("openvino",)),
    "sparse": (".sparse", ("native",)),
}
"""Graph format -> (suffix of its files, engines that run it)."""

PRECISIONS = ("fp32", "fp16", "int8")

MAX_FILES = 64
MAX_BYTES = 1 << 31
"""All files of a bundle together; PVANet 9.0 in fp32, with sparse programs beside its graphs, has half of it."""

MAX_ANCHORS = 1_000_000
MAX_PROPOSALS = 10_000
MAX_QUERIES = 10_000

_KEYS = (
    "format",
    "version",
    "name",
    "task",
    "spec",
    "target",
    "graph_format",
    "precision",
    "engines",
    "threads",
    "graphs",
    "engine_options",
    "golden",
    "calibration",
    "macs",
    "parameters",
    "accuracy",
    "kept_float",
    "parity",
    "provenance",
    "tool_versions",
    "files",
)
_OPTIONAL_KEYS = ("layers", "sparse")
"""``layers``: MACs and parameters of each layer, as ``edgekit.metrics.macs`` writes them. ``sparse``: sparse programs
beside dense graphs (``edgekit.bundle.sparse_part``)."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A ``bundle.json`` in which every field has been checked."""

    name: str
    spec: DetectorSpec
    target: str | None
    """Board that it was exported for."""

    graph_format: str
    """``onnx``, ``tflite``, ``openvino`` or ``sparse``."""

    precision: str
    """``fp32``, ``fp16`` or ``int8``."""

    engines: tuple[str, ...]
    """Engines that run the graphs, best first."""

    threads: int
    """CPU threads that suit the target."""

    graphs: Mapping[str, str]
    """Graph name (``spec.graphs``) -> path of the graph file."""

    engine_options: Mapping[str, Mapping[str, Any]]
    """Engine -> its own settings; each backend checks them."""

    golden: Golden
    macs: Mapping[str, int]
    """Multiply-accumulates of one frame without a mask: ``dense`` (the detector) and ``omg``."""

    parameters: int
    files: Mapping[str, FileEntry]
    """Path -> size and hash, of every file but ``bundle.json``."""

    document: Mapping[str, Any]
    """The JSON as it was read, with the fields that only people look at."""

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


def read_manifest(document: object, where: str = NAME) -> Manifest:
    """Check a parsed ``bundle.json``.

    Raises:
        BundleError: a field is missing, unknown, of the wrong type or out of range; the message names it.
        BundlePathError: a path leads outside the bundle.
        BundleIntegrityError: a path names a file that ``files`` does not list.
    """
    root = Fields(document, where)
    root.choice("format", (FORMAT,))
    if root.integer("version", 1, 10**6) != VERSION:
        raise BundleError(
            f"{where}: version {root.value['version']} is not known; this edgekit reads version {VERSION}.\n"
            "The bundle comes from a newer edgekit: pip install --upgrade edgekit-vision"
        )
    root = Fields(document, where, (*_KEYS, *_OPTIONAL_KEYS))
    root.choice("task", ("detection",))
    graph_format = root.choice("graph_format", GRAPH_FORMATS)
    suffix = GRAPH_FORMATS[graph_format][0]
    engines = _engines(root, graph_format)
    files = _files(root.child("files"))
    _check_remarks(root)
    spec = read_spec(root.get("spec"), root.path("spec"))
    return Manifest(
        name=root.text("name", r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", "a name of letters, digits, '.', '_' and '-'"),
        spec=spec,
        target=None if root.get("target") is None else root.text("target"),
        graph_format=graph_format,
        precision=root.choice("precision", PRECISIONS),
        engines=engines,
        threads=root.integer("threads", 1, 1024),
        graphs=read_graphs(root.child("graphs", spec.graphs), suffix, files),
        engine_options=_engine_options(root.child("engine_options")),
        golden=read_golden(root.child("golden", Golden.__dataclass_fields__), files),
        macs=_macs(root.child("macs")),
        parameters=root.integer("parameters", 0, 10**12),
        files=files,
        document=root.value,
        sparse=read_sparse_part(
            root, graphs=spec.sparse_graphs, graph_format=graph_format, suffix=suffix, engines=engines, files=files
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
        raise BundleError(f"{root.path('classes')}: the name {_repeated(classes)!r} appears twice")
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


def _files(fields: Fields) -> dict[str, FileEntry]:
    if len(fields.value) > MAX_FILES:
        raise BundleError(f"{fields.where} lists {len(fields.value)} files; a bundle has at most {MAX_FILES}")
    entries = {}
    for path in fields.value:
        check_path(path, fields.where)
        entry = fields.child(path, ("sha256", "bytes"))
        digest = entry.text("sha256", r"[0-9a-f]{64}", "64 hexadecimal digits")
        entries[path] = FileEntry(sha256=digest, bytes=entry.integer("bytes", 0, MAX_BYTES))
    check_distinct([NAME, *entries], fields.where)
    if (total := sum(entry.bytes for entry in entries.values())) > MAX_BYTES:
        raise BundleError(f"{fields.where}: {total} bytes in all; a bundle has at most {MAX_BYTES}")
    return entries


def _engines(root: Fields, graph_format: str) -> tuple[str, ...]:
    engines = root.texts("engines", least=1, most=10)
    able = GRAPH_FORMATS[graph_format][1]
    for name in engines:
        if name not in able:
            raise BundleError(
                f"{root.path('engines')}: {short(name)} does not run {graph_format} graphs; {', '.join(able)} can"
            )
    if len(set(engines)) != len(engines):
        raise BundleError(f"{root.path('engines')}: {_repeated(engines)!r} appears twice")
    return engines


def _engine_options(fields: Fields) -> dict[str, dict[str, Any]]:
    return {name: fields.mapping(name) for name in fields.value}


def _macs(fields: Fields) -> dict[str, int]:
    for required in ("dense", "omg"):
        fields.get(required)
    return {key: fields.integer(key, 0, 10**15) for key in fields.value}


def _check_remarks(root: Fields) -> None:
    """The fields that only people read: right kind, and nothing in them that JSON cannot write again."""
    root.texts("kept_float", most=10_000)
    if "layers" in root.value:
        root.items("layers", most=100_000)
    for key in ("parity", "provenance", "tool_versions"):
        root.mapping(key)
    for key in ("calibration", "accuracy"):
        if root.get(key) is not None:
            root.mapping(key)
    for key in ("training_data", "starting_weights"):
        root.child("provenance").text(key)
    if root.get("calibration") is not None:
        calibration = root.child("calibration")
        calibration.integer("images", 1, 10**9)
        calibration.text("sha256", r"[0-9a-f]{64}", "64 hexadecimal digits")
    try:
        json.dumps(root.value, allow_nan=False)
    except ValueError as error:
        raise BundleError(f"{root.where} holds an infinite number: {error}") from error


def _repeated(names: tuple[str, ...]) -> str:
    return next(name for name in names if names.count(name) > 1)
