"""The parts of a manifest that name files: what each file must be, pairs of graphs, and the self-test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgekit.bundle.fields import Fields, short
from edgekit.bundle.paths import check_path
from edgekit.errors import BundleError, BundleIntegrityError


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """What a file must be."""

    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far a run of the golden input may be from the recorded one."""

    objectness: float
    """Largest difference of a cell's objectness (0..1)."""

    mask_cells: int
    """How many cells of the mask may differ."""

    score: float
    """Largest difference of a score (0..1)."""

    box_px: float
    """Largest difference of a box side, in input pixels."""


@dataclass(frozen=True, kw_only=True)
class Golden:
    """The self-test: a letterboxed input, what it gave when the bundle was made, and how close is close enough."""

    input: str
    output: str
    tolerance: Tolerance


def read_graphs(fields: Fields, suffix: str, files: Mapping[str, FileEntry]) -> dict[str, str]:
    """Graph name -> path of a listed file that ends in ``suffix``, with its weights if it is OpenVINO's.

    Args:
        fields: a section whose known keys are the graphs of the spec.
        suffix: what a path must end in.
        files: what the manifest lists.

    Raises:
        BundleError: a graph is missing, or its path ends in something else.
        BundlePathError: a path leads outside the bundle.
        BundleIntegrityError: a file is not listed.
    """
    graphs = {name: listed(fields, name, files) for name in fields.known}
    for name, path in graphs.items():
        if not path.endswith(suffix):
            raise BundleError(f"{fields.path(name)} must end in {suffix}, got {short(path)}")
        weights = path.removesuffix(".xml") + ".bin"
        if path.endswith(".xml") and weights not in files:
            raise BundleIntegrityError(f"{fields.path(name)}: its weights {weights!r} are not listed in files")
    return graphs


def read_golden(fields: Fields, files: Mapping[str, FileEntry]) -> Golden:
    """Check a section ``golden``; raises as :func:`read_graphs`."""
    limits = fields.child("tolerance", Tolerance.__dataclass_fields__)
    return Golden(
        input=listed(fields, "input", files),
        output=listed(fields, "output", files),
        tolerance=Tolerance(
            objectness=limits.number("objectness", 0, 1),
            mask_cells=limits.integer("mask_cells", 0, 1024 * 1024),
            score=limits.number("score", 0, 1),
            box_px=limits.number("box_px", 0, 8192),
        ),
    )


def listed(fields: Fields, key: str, files: Mapping[str, FileEntry]) -> str:
    """The path at ``key``, of a file that the manifest lists; raises as :func:`read_graphs`."""
    path = check_path(fields.text(key), fields.path(key))
    if path not in files:
        raise BundleIntegrityError(f"{fields.path(key)} names {path!r}, which is not listed in files")
    return path
