"""Where objectness masks come from, behind one callable: OMG network, nothing, polygons, ground truth, combinations.

``parse_mask_source`` reads what ``--mask`` accepts:

=================== ==================================================================================
``omg``             the OMG network: cells whose objectness reaches the frame's threshold, dilated
``off``             every cell active, padding too: the plain detector, bit for bit
``tracks``          the cells in and around what was found in the frame before: for ``omg+tracks`` on video
``truth``           the cells under ground-truth boxes: a perfect mask, for analysis
``FILE.json``       the cells under polygons (``edgekit.masks.polygon`` has the format)
``a+b``             union
``a&b``             intersection; binds tighter than ``+``, so ``a+b&c`` is ``a+(b&c)``
=================== ==================================================================================

Except for ``off``, cells that lie wholly in the letterbox padding are background: no object is there.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgekit.data.letterbox import Letterboxed
from edgekit.detections import Detections
from edgekit.errors import UsageError
from edgekit.masks.polygon import polygons_to_mask, read_polygons
from edgekit.masks.pyramid import Mask, boxes_to_mask, dilate
from edgekit.masks.threshold import frame_threshold
from edgekit.spec import DetectorSpec


@dataclass(frozen=True, kw_only=True)
class MaskInput:
    """What a mask source may look at for one frame."""

    letterboxed: Letterboxed
    """The frame as the detector will see it."""

    spec: DetectorSpec
    """The detector that the mask is for."""

    objectness: Callable[[], NDArray[np.float32]]
    """Runs the OMG graph, once at most, and returns probabilities [G, G] in 0..1."""

    truth_xyxy: NDArray[np.float32] | None = None
    """Ground-truth boxes [N, 4] in pixels of the source picture, where they are known."""

    previous: Detections | None = None
    """What was found in the frame before, in pixels of the source picture; None for a first frame."""


class MaskSource(Protocol):
    """Gives the mask [G, G] of one frame, G = ``frame.spec.mask_grid``."""

    def __call__(self, frame: MaskInput) -> Mask:
        """The mask of ``frame``."""
        ...


def omg(frame: MaskInput) -> Mask:
    """Cells that the OMG network finds worth looking at, grown by ``spec.mask_dilation`` cells."""
    objectness = frame.objectness()
    active: Mask = objectness >= frame_threshold(float(objectness.max()), frame.spec)
    return dilate(active, frame.spec.mask_dilation) & picture_cells(frame.letterboxed, frame.spec)


def off(frame: MaskInput) -> Mask:
    """Every cell, padding included: the detector without a mask."""
    return np.ones((frame.spec.mask_grid, frame.spec.mask_grid), np.bool_)


def tracks(frame: MaskInput) -> Mask:
    """Every cell that something found in the frame before touches, or comes within half a cell of.

    The mask network keeps as little of a small object as it takes to see it, and a detector wants some of what is
    around it. Nothing new is ever found with this alone: it is for unions.
    """
    spec = frame.spec
    if frame.previous is None:
        return np.zeros((spec.mask_grid, spec.mask_grid), np.bool_)
    sure = frame.previous.scores >= spec.score_threshold  # an evaluation keeps far less likely ones, too
    boxes = frame.letterboxed.to_input(frame.previous.boxes_xyxy[sure])
    half_x, half_y = spec.width / (2 * spec.mask_grid), spec.height / (2 * spec.mask_grid)
    boxes += np.array([-half_x, -half_y, half_x, half_y], np.float32)
    cells = boxes_to_mask(boxes, grid=spec.mask_grid, height=spec.height, width=spec.width)
    return cells & picture_cells(frame.letterboxed, spec)


def truth(frame: MaskInput) -> Mask:
    """Every cell that a ground-truth box touches.

    Raises:
        UsageError: the frame comes without ground truth, as a camera's does.
    """
    if frame.truth_xyxy is None:
        raise UsageError(
            "the mask source 'truth' needs ground-truth boxes, and these frames have none.\n"
            "It serves data sets (edgekit val --mask truth); for a camera use --mask omg."
        )
    spec = frame.spec
    boxes = frame.letterboxed.to_input(np.asarray(frame.truth_xyxy, np.float32).reshape(-1, 4))
    return boxes_to_mask(boxes, grid=spec.mask_grid, height=spec.height, width=spec.width)


class PolygonSource:
    """The cells under fixed polygons; computed once for each geometry of frames."""

    def __init__(self, path: Path) -> None:
        """Read ``path``; raises :class:`UsageError` when it is missing or malformed."""
        self.polygons = read_polygons(path)
        self._geometry: tuple[int, ...] = ()
        self._mask: Mask = np.zeros((0, 0), np.bool_)

    def __call__(self, frame: MaskInput) -> Mask:
        """The cells under the polygons in the picture of ``frame``."""
        letterboxed, spec = frame.letterboxed, frame.spec
        geometry = (letterboxed.source_height, letterboxed.source_width, spec.height, spec.width, spec.mask_grid)
        if geometry != self._geometry:
            self._mask = polygons_to_mask(self.polygons, letterboxed, grid=spec.mask_grid)
            self._geometry = geometry
        return self._mask.copy()


@dataclass(frozen=True)
class Union:
    """Active where any of ``parts`` is."""

    parts: tuple[MaskSource, ...]

    def __call__(self, frame: MaskInput) -> Mask:
        """The union for ``frame``."""
        mask: Mask = np.logical_or.reduce([part(frame) for part in self.parts])
        return mask


@dataclass(frozen=True)
class Intersection:
    """Active where all of ``parts`` are; a part is not asked once nothing is left, so order the cheap one first."""

    parts: tuple[MaskSource, ...]

    def __call__(self, frame: MaskInput) -> Mask:
        """The intersection for ``frame``."""
        mask = self.parts[0](frame)
        for part in self.parts[1:]:
            if not mask.any():
                break
            mask = mask & part(frame)
        return mask


NAMED: dict[str, MaskSource] = {"omg": omg, "off": off, "tracks": tracks, "truth": truth}
"""The sources that need no file."""


def parse_mask_source(text: str, spec: DetectorSpec) -> MaskSource:
    """The mask source that ``text`` describes (grammar at the top of this module) for detectors like ``spec``.

    Raises:
        UsageError: an unknown name, an empty operand, a missing or malformed polygon file.
    """
    unions = tuple(_parse_intersection(part, text) for part in text.split("+"))
    return unions[0] if len(unions) == 1 else Union(unions)


def picture_cells(letterboxed: Letterboxed, spec: DetectorSpec) -> Mask:
    """The cells [G, G] that the picture touches: all but those wholly in the letterbox padding."""
    whole = np.array([[0, 0, letterboxed.source_width, letterboxed.source_height]], np.float32)
    return boxes_to_mask(letterboxed.to_input(whole), grid=spec.mask_grid, height=spec.height, width=spec.width)


def _parse_intersection(text: str, whole: str) -> MaskSource:
    parts = tuple(_parse_one(part.strip(), whole) for part in text.split("&"))
    return parts[0] if len(parts) == 1 else Intersection(parts)


def _parse_one(text: str, whole: str) -> MaskSource:
    if text in NAMED:
        return NAMED[text]
    if text.lower().endswith(".json"):
        return PolygonSource(Path(text))
    if not text:
        raise UsageError(f"the mask {whole!r} has an empty part; write for example omg, zones.json or omg&zones.json")
    near = difflib.get_close_matches(text, NAMED, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "a polygon file must end in .json"
    raise UsageError(
        f"no mask source is called {text!r}: {hint}\n"
        f"There are: {', '.join(NAMED)}, FILE.json, a+b (union) and a&b (intersection)."
    )
