"""What every bundle says of itself, whatever its task, and the strict check of that."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.bundle.fields import Fields, short
from edgekit.bundle.listed import FileEntry, read_graphs
from edgekit.bundle.paths import check_distinct, check_path
from edgekit.errors import BundleError

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

HEAD_KEYS = (
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
OPTIONAL_KEYS = ("layers",)
"""``layers``: MACs and parameters of each layer, as ``edgekit.metrics.macs`` writes them."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """The part of a ``bundle.json`` that all tasks share, checked."""

    name: str
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

    parameters: int
    files: Mapping[str, FileEntry]
    """Path -> size and hash, of every file but ``bundle.json``."""

    document: Mapping[str, Any]
    """The JSON as it was read, with the fields that only people look at."""

    @property
    def choices(self) -> tuple[str, ...]:
        """What ``--engine`` takes for this bundle, best first."""
        return self.engines

    def graphs_of(self, engine: str) -> Mapping[str, str]:
        """Graph name (of ``spec.graphs``) -> path of the file that ``engine``, one of the choices, runs."""
        assert engine in self.choices
        return self.graphs

    def precision_of(self, engine: str) -> str:
        """Precision of what ``engine``, one of the choices, runs."""
        assert engine in self.choices
        return self.precision


def read_head(root: Fields, graphs: tuple[str, ...]) -> dict[str, Any]:
    """The values of a :class:`Head` by field.

    Args:
        root: the whole document, whose keys are known.
        graphs: names of those that the model has.

    Raises:
        BundleError: a field is missing, of the wrong type or out of range; the message names it.
        BundlePathError: a path leads outside the bundle.
        BundleIntegrityError: a path names a file that ``files`` does not list.
    """
    graph_format = root.choice("graph_format", GRAPH_FORMATS)
    files = read_files(root)
    _check_remarks(root)
    return {
        "name": root.text("name", r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", "a name of letters, digits, '.', '_' and '-'"),
        "target": None if root.get("target") is None else root.text("target"),
        "graph_format": graph_format,
        "precision": root.choice("precision", PRECISIONS),
        "engines": _engines(root, graph_format),
        "threads": root.integer("threads", 1, 1024),
        "graphs": read_graphs(root.child("graphs", graphs), GRAPH_FORMATS[graph_format][0], files),
        "engine_options": _engine_options(root.child("engine_options")),
        "parameters": root.integer("parameters", 0, 10**12),
        "files": files,
        "document": root.value,
    }


def read_files(root: Fields) -> dict[str, FileEntry]:
    """The section ``files``; raises as :func:`read_head`."""
    fields = root.child("files")
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
        raise BundleError(f"{root.path('engines')}: {repeated(engines)!r} appears twice")
    return engines


def _engine_options(fields: Fields) -> dict[str, dict[str, Any]]:
    return {name: fields.mapping(name) for name in fields.value}


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


def repeated(names: tuple[str, ...]) -> str:
    """The first of ``names`` that is there twice."""
    return next(name for name in names if names.count(name) > 1)
