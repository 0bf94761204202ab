"""Where objectness masks come from, behind one callable: OMG network, nothing, polygons, motion, tracks, combinations.

``parse_mask_source`` reads what ``--mask`` accepts (``edgekit.masks.expression`` has the grammar):

==================== =================================================================================
``omg``              the OMG network: cells whose objectness reaches the frame's threshold, dilated
``off``              every cell active, padding too: the plain detector, bit for bit
``motion``           the cells in and around what differs from the background (``edgekit.masks.motion``)
``tracks``           the cells in and around what is followed, or was found in the frame before
``truth``            the cells under ground-truth boxes: a perfect mask, for analysis
``roi(FILE)``        the cells under the polygons of a zones file (``edgekit.masks.polygon``), as it is now
``roi(FILE:ZONE)``   the cells under the one of them with this name
``tcl(FILE)``        the cells in and around what a segmenter's bundle finds by words (``edgekit.masks.words``), looked
                     for every second; ``tcl(FILE:S)``: every S seconds
``a | b``, ``a & b`` union and intersection; ``&`` binds tighter
==================== =================================================================================

Except for ``off``, cells that lie wholly in the letterbox padding are background: no object is there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgekit.data.letterbox import Letterboxed
from edgekit.detections import Detections
from edgekit.errors import UsageError
from edgekit.masks.expression import AllOf, AnyOf, Expression, Named, Tcl, names_in, parse_expression
from edgekit.masks.motion import Motion
from edgekit.masks.polygon import Region, polygons_to_mask
from edgekit.masks.pyramid import Mask, boxes_to_mask, dilate, picture_cells
from edgekit.masks.threshold import frame_threshold
from edgekit.spec import DetectorSpec
from edgekit.tracking.zones_file import ZonesFile


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

    tracks: NDArray[np.float32] | None = None
    """Boxes [N, 4] in pixels of the source picture where followed objects are expected in this frame; None where nobody
    follows."""

    time_s: float | None = None
    """When the frame was captured, in seconds of a clock that only runs forwards; None where nobody says."""


class MaskSource(Protocol):
    """Gives the mask of one frame, of the size ``frame.spec.mask_grid``; [G, G] where others speak of one."""

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
    return np.ones(frame.spec.mask_grid, np.bool_)


def tracks(frame: MaskInput) -> Mask:
    """Every cell that something followed is expected to touch, or to come within half a cell of.

    Where nobody follows, it is what was found in the frame before. The mask network keeps as little of a small object
    as it takes to see it, and a detector wants some of what is around it. Nothing new is ever found with this alone: it
    is for unions.
    """
    spec = frame.spec
    source_px = frame.tracks
    if source_px is None:
        if frame.previous is None:
            return np.zeros(spec.mask_grid, np.bool_)
        # An evaluation keeps far less likely ones, too.
        source_px = frame.previous.boxes_xyxy[frame.previous.scores >= spec.score_threshold]
    return cells_around(source_px, frame)


def cells_around(source_px: NDArray[np.float32], frame: MaskInput) -> Mask:
    """The cells that boxes [N, 4] in pixels of the source picture touch, or come within half a cell of."""
    spec = frame.spec
    rows, columns = spec.mask_grid
    half_x, half_y = spec.width / (2 * columns), spec.height / (2 * rows)
    boxes = frame.letterboxed.to_input(source_px) + np.array([-half_x, -half_y, half_x, half_y], np.float32)
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
    """The cells under the polygons of a zones file, which may change; computed once for each geometry of frames."""

    def __init__(self, region: Region) -> None:
        """Nothing was looked at yet."""
        self.region = region
        self._geometry: tuple[int, ...] = ()
        self._mask: Mask = np.zeros((0, 0), np.bool_)

    def __call__(self, frame: MaskInput) -> Mask:
        """The cells under the polygons in the picture of ``frame``; a file without any restricts nothing."""
        letterboxed, spec = frame.letterboxed, frame.spec
        geometry = (letterboxed.source_height, letterboxed.source_width, spec.height, spec.width, *spec.mask_grid)
        if self.region.refresh() or geometry != self._geometry:
            polygons = self.region.polygons
            self._mask = (
                polygons_to_mask(polygons, letterboxed, grid=spec.mask_grid)
                if polygons
                else picture_cells(letterboxed, spec)
            )
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
    """Active where all of ``parts`` are; a part is not asked once nothing is left, so put cheap ones first."""

    parts: tuple[MaskSource, ...]

    def __call__(self, frame: MaskInput) -> Mask:
        """The intersection for ``frame``."""
        mask = self.parts[0](frame)
        for part in self.parts[1:]:
            if not mask.any():
                break
            mask = mask & part(frame)
        return mask


STATELESS: dict[str, MaskSource] = {"omg": omg, "off": off, "tracks": tracks, "truth": truth}
"""The sources that remember nothing."""


def parse_mask_source(text: str, spec: DetectorSpec) -> MaskSource:
    """The mask source that ``text`` describes (grammar in ``edgekit.masks.expression``) for detectors like ``spec``.

    What it remembers of its camera is its own: parse once for each camera.

    Raises:
        UsageError: the text makes no sense, with the column; a missing or malformed zones file; or a bundle that is no
            segmenter's.
        BundleError, EngineError, MissingDependencyError: a segmenter cannot be loaded.
    """
    return mask_source(parse_expression(text), spec)


def mask_source(expression: Expression, spec: DetectorSpec, files: dict[str, ZonesFile] | None = None) -> MaskSource:
    """A new mask source for what was read; errors as :func:`parse_mask_source`.

    ``files`` are those that are open already, by their names in expressions, and gets those that are opened here: so
    each is looked at, and complained of, once.
    """
    files = {} if files is None else files
    if isinstance(expression, AnyOf):
        return Union(tuple(mask_source(part, spec, files) for part in expression.parts))
    if isinstance(expression, AllOf):
        return Intersection(tuple(mask_source(part, spec, files) for part in sorted(expression.parts, key=_price)))
    if isinstance(expression, Named):
        return Motion() if expression.name == "motion" else STATELESS[expression.name]
    if isinstance(expression, Tcl):
        from edgekit.masks.words import EVERY_S, WordMask, segmenter_at

        every_s = EVERY_S if expression.seconds is None else expression.seconds
        return WordMask(segmenter_at(Path(expression.file)), every_s=every_s)
    if expression.file not in files:
        files[expression.file] = ZonesFile(Path(expression.file))
    return PolygonSource(Region(files[expression.file], expression.zone))


def _price(expression: Expression) -> int:
    """What is asked first in an intersection: motion, which learns from every frame, then by what it costs."""
    names = names_in(expression)
    return 3 if "tcl" in names else 2 if "omg" in names else 0 if "motion" in names else 1
