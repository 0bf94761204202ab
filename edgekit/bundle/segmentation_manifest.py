"""``bundle.json`` of a segmenter: what it says besides every bundle's head, and the strict check of every field."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgekit.bundle.fields import Fields, number
from edgekit.bundle.head import HEAD_KEYS, NAME, OPTIONAL_KEYS, Head, read_head
from edgekit.bundle.listed import listed
from edgekit.errors import BundleError
from edgekit.segmentation.spec import SegmenterSpec

TASK = "segmentation"

PROMPTS = "prompts.json"
"""The file of prompts that it looks for if nobody says otherwise."""

LARGEST_EMBEDDING = 4096


@dataclass(frozen=True, kw_only=True)
class SegmentationTolerance:
    """How far a run of the golden input may be from the recorded one."""

    score: float
    """Largest difference of a cell's score (0..1) of any prompt."""

    pixels: float
    """Share (0..1) of the pixels whose label may differ."""

    def to_json(self) -> dict[str, float]:
        """A dictionary for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class SegmentationGolden:
    """The self-test: a picture of the input's size, and what it gave when the bundle was made."""

    input: str
    output: str
    tolerance: SegmentationTolerance


@dataclass(frozen=True, kw_only=True)
class SegmentationManifest(Head):
    """A ``bundle.json`` in which every field has been checked."""

    spec: SegmenterSpec
    prompts: str
    """Path of the file of prompts."""

    golden: SegmentationGolden
    macs: int
    """Multiply-accumulates of one picture."""


def read_segmentation(document: object, where: str = NAME) -> SegmentationManifest:
    """Check a parsed ``bundle.json`` of a segmenter, whose format, version and task are known.

    Raises:
        BundleError: a field is missing, unknown, of the wrong type or out of range; the message names it.
        BundlePathError: a path leads outside the bundle.
        BundleIntegrityError: a path names a file that ``files`` does not list.
    """
    root = Fields(document, where, (*HEAD_KEYS, *OPTIONAL_KEYS, "prompts"))
    spec = read_segmenter_spec(root.get("spec"), root.path("spec"))
    head = read_head(root, spec.graphs)
    golden = root.child("golden", SegmentationGolden.__dataclass_fields__)
    limits = golden.child("tolerance", SegmentationTolerance.__dataclass_fields__)
    return SegmentationManifest(
        **head,
        spec=spec,
        prompts=listed(root, "prompts", head["files"]),
        golden=SegmentationGolden(
            input=listed(golden, "input", head["files"]),
            output=listed(golden, "output", head["files"]),
            tolerance=SegmentationTolerance(score=limits.number("score", 0, 1), pixels=limits.number("pixels", 0, 1)),
        ),
        macs=root.child("macs", ("dense",)).integer("dense", 0, 10**15),
    )


def read_segmenter_spec(value: object, where: str = "spec") -> SegmenterSpec:
    """Check the JSON of a :class:`SegmenterSpec`; raises :class:`BundleError` naming the field."""
    root = Fields(value, where, SegmenterSpec.__dataclass_fields__)
    root.text("model", r"[\w.-]{1,100}", "a model name")
    root.text("text", r"[0-9a-f]{64}", "64 hexadecimal digits")
    root.text("templates", r"[\w.-]{1,100}", "a name of templates")
    for side in ("height", "width", "rows", "columns"):
        root.integer(side, 1, 8192)
    root.integer("embedding", 1, LARGEST_EMBEDDING)
    for side in ("known_rows", "known_columns"):
        root.integer(side, 0, 8192)
    _triple(root, "mean", -1e6, 1e6)
    _triple(root, "std", 1e-9, 1e6)
    root.number("stretch", 1, 100)
    for key in ("sim_scale", "sim_shift"):
        root.number(key, -1e6, 1e6)
    for key in ("clip_share", "background"):
        root.number(key, 0, 1)
    if not isinstance(root.get("pamr"), bool):
        raise BundleError(f"{root.path('pamr')} must be true or false")
    if bool(root.value["known_rows"] and root.value["known_columns"]) != bool(root.value["clip_share"]):
        raise BundleError(f"{root.where}: known_rows and known_columns go with a clip_share over 0, and only with it")
    return SegmenterSpec.from_json(root.value)


def _triple(root: Fields, key: str, low: float, high: float) -> None:
    values: list[Any] = root.items(key, most=3)
    if len(values) != 3:
        raise BundleError(f"{root.path(key)} must be three numbers, of red, green and blue")
    for index, value in enumerate(values):
        number(value, f"{root.path(key)}[{index}]", low, high)
