"""The section ``sparse`` of a manifest: what ``edgekit export --sparse`` puts beside the dense graphs.

The same networks, with the same calibration, as sparse programs for the native engine, and the programs inside graphs
of the bundle's own format, for an engine that is there already. Beside them, from which share of active cells the
dense graph is faster, once ``edgekit bench sparse`` has measured that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgekit.bundle.fields import Fields
from edgekit.bundle.listed import FileEntry, Golden, read_golden, read_graphs
from edgekit.errors import BundleError

PROGRAM_SUFFIX = ".sparse"

NATIVE = "native"
"""The engine of the programs."""

REGION_ENGINES = {"onnx": "onnxruntime-sparse", "tflite": "tflite-sparse", "openvino": "openvino-sparse"}
"""Graph format -> what ``--engine`` calls the engine that runs programs inside graphs of it."""

_KEYS = ("programs", "regions", "golden", "break_even", "parity", "accuracy")


@dataclass(frozen=True, kw_only=True)
class BreakEven:
    """Up to which share of active cells the native engine is the faster one, measured on one machine."""

    cpu: str
    """The machine's processor (``edgekit.profiling.machine``); another one has another break-even."""

    threads: int
    """CPU threads of both engines."""

    engine: str
    """The fastest dense engine."""

    share: float
    """0..1 of the cells; 1 where the native engine is never slower, 0 where it always is."""

    def to_json(self) -> dict[str, Any]:
        """A dictionary that ``json`` can write."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class SparsePart:
    """The section ``sparse``, checked."""

    programs: Mapping[str, str]
    """Graph name -> path of the sparse program."""

    regions: Mapping[str, str]
    """Graph name -> path of the graph that holds the program."""

    golden: Golden
    """What the programs made of the golden input: int8 rounds elsewhere in them than in a dense graph."""

    break_even: BreakEven | None
    """None where nobody has measured it."""


def program_precision(precision: str) -> str:
    """Precision of the programs in a bundle of ``precision``: the native engine has no fp16."""
    return "fp32" if precision == "fp16" else precision


def region_suffix(suffix: str) -> str:
    """Of the file that stands in for a dense one that ends in ``suffix``: ``.onnx`` -> ``.sparse.onnx``."""
    return f"{PROGRAM_SUFFIX}{suffix}"


def read_sparse_part(
    root: Fields,
    *,
    graphs: Sequence[str],
    graph_format: str,
    suffix: str,
    engines: Sequence[str],
    files: Mapping[str, FileEntry],
) -> SparsePart:
    """Check the section ``sparse`` of the manifest ``root``.

    Args:
        root: the manifest.
        graphs: names of those that have a program.
        graph_format: of the dense graphs.
        suffix: of their files.
        engines: that run them.
        files: what the manifest lists.

    Raises:
        BundleError, BundlePathError, BundleIntegrityError: as :func:`edgekit.bundle.manifest.read_manifest`.
    """
    fields = root.child("sparse", _KEYS)
    if graph_format not in REGION_ENGINES:
        raise BundleError(f"{fields.where}: the graphs are {graph_format} already, so there can be no other programs")
    fields.mapping("parity")
    if fields.get("accuracy") is not None:
        fields.mapping("accuracy")
    return SparsePart(
        programs=read_graphs(fields.child("programs", graphs), PROGRAM_SUFFIX, files),
        regions=read_graphs(fields.child("regions", graphs), region_suffix(suffix), files),
        golden=read_golden(fields.child("golden", Golden.__dataclass_fields__), files),
        break_even=None if fields.get("break_even") is None else _read_break_even(fields, engines),
    )


def _read_break_even(part: Fields, engines: Sequence[str]) -> BreakEven:
    fields = part.child("break_even", BreakEven.__dataclass_fields__)
    return BreakEven(
        cpu=fields.text("cpu", r".{1,1000}", "the name of a processor"),
        threads=fields.integer("threads", 1, 1024),
        engine=fields.choice("engine", engines),
        share=fields.number("share", 0, 1),
    )
