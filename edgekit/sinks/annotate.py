"""Draw what a detector found on the picture, and darken what it did not look at; colour what a segmenter found."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekit.data.letterbox import letterbox
from edgekit.masks.pyramid import Mask
from edgekit.sinks.colours import Colour, class_colour
from edgekit.sinks.label_map import STRENGTH, legend_over
from edgekit.spec import Described
from edgekit.tracking.zones import Corners, Zones

if TYPE_CHECKING:
    from edgekit.pipeline import FrameResult, Segments

Picture = NDArray[np.uint8]

ZONE_COLOUR: Colour = (255, 220, 60)

BACKGROUND_LIGHT = 0.4
"""Brightness that is left where the detector did not look: clearly darker, still recognisable."""


def annotate(image: Picture, result: FrameResult, spec: Described, *, zones: Zones | None = None) -> Picture:
    """A copy of ``image`` [h, w, 3] RGB with inactive background darkened, boxes, labels and the active share.

    Where somebody follows, boxes are those of tracks, with their numbers, thin where a track was not seen. What a
    segmenter found is coloured instead, under a legend, and only tracks have boxes.
    """
    segments = result.segments
    canvas = shade_background(image, result.mask, spec) if segments is None else shade_segments(image, segments.labels)
    height, width = image.shape[:2]
    scale = max(0.35, min(height, width) / 900)
    for zone in zones.zones if zones else ():
        _outline(canvas, zone.corners, zone.name, scale)
    for line in zones.lines if zones else ():
        _outline(canvas, np.array([line.start, line.end]), line.name, scale)
    thick = max(1, round(2 * scale + 0.5))
    for box, class_id, label, seen in _boxes(result, spec.classes):
        left, top, right, bottom = (round(edge) for edge in box)
        colour = class_colour(class_id)
        cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), colour, thick if seen else 1, cv2.LINE_AA)
        _write(canvas, label, left=left, bottom=top, scale=scale, paper=colour)
    if segments is not None:
        return legend_over(canvas, _legend(segments, spec.classes))
    share = f"active {result.active_share:.0%}"
    _write(canvas, share, left=0, bottom=height, scale=scale, paper=(32, 32, 32))
    return canvas


def _legend(segments: Segments, classes: tuple[str, ...]) -> list[tuple[str, Colour]]:
    """What is there, with its share of the picture; always in the order of the classes, so that lines do not jump."""
    return [
        (f"{name} {share:.0%}", class_colour(class_id))
        for class_id, (name, share) in enumerate(zip(classes, segments.shares.tolist(), strict=True))
        if share > 0
    ]


def _boxes(
    result: FrameResult, classes: tuple[str, ...]
) -> list[tuple[tuple[float, float, float, float], int, str, bool]]:
    """Box, class, label and whether it was seen; the worst first, so that the best box is drawn on top."""
    if result.tracks is not None:
        return [
            (track.box_xyxy, track.class_id, f"{track.id} {classes[track.class_id]} {track.score:.2f}", track.seen)
            for track in sorted(result.tracks, key=lambda track: (track.seen, track.score))
        ]
    if result.segments is not None:
        return []  # their pixels are coloured
    found = result.detections
    rows = zip(found.boxes_xyxy.tolist(), found.class_ids.tolist(), found.scores.tolist(), strict=True)
    return [
        ((left, top, right, bottom), class_id, f"{classes[class_id]} {score:.2f}", True)
        for (left, top, right, bottom), class_id, score in reversed(list(rows))
    ]


def _outline(canvas: Picture, corners: Corners, name: str, scale: float) -> None:
    height, width = canvas.shape[:2]
    points = np.round(corners * [width - 1, height - 1]).astype(np.int32)
    cv2.polylines(canvas, [points], len(points) > 2, ZONE_COLOUR, max(1, round(2 * scale)), cv2.LINE_AA)
    left, top = points.min(axis=0).tolist()
    _write(canvas, name, left=left, bottom=top, scale=scale, paper=ZONE_COLOUR)


def shade_background(image: Picture, mask: Mask, spec: Described) -> Picture:
    """A copy of ``image`` [h, w, 3] with every pixel darkened whose cell of ``mask`` [G, G] is inactive."""
    height, width = image.shape[:2]
    rows, columns = _cells(height, width, spec.height, spec.width, mask.shape)
    active = mask.astype(np.uint8).take(columns, axis=1).take(rows, axis=0)  # [h, w]; whole rows are copied last
    dark = cv2.convertScaleAbs(image, alpha=BACKGROUND_LIGHT)
    return np.asarray(cv2.copyTo(image, active, dark), np.uint8)


def shade_segments(image: Picture, labels: NDArray[np.uint8]) -> Picture:
    """A copy of ``image`` [h, w, 3] whose pixels have the colour of their class: ``labels`` [h', w'], 0 for none."""
    height, width = image.shape[:2]
    table = np.array([(0, 0, 0), *(class_colour(number) for number in range(int(labels.max())))], np.uint8)
    tint = cv2.resize(table[labels], (width, height), interpolation=cv2.INTER_NEAREST)
    found = cv2.resize(np.minimum(labels, 1), (width, height), interpolation=cv2.INTER_NEAREST)
    mixed = cv2.addWeighted(image, 1 - STRENGTH, tint, STRENGTH, 0)
    return np.asarray(cv2.copyTo(mixed, found, image.copy()), np.uint8)


@lru_cache(maxsize=8)
def _cells(
    height: int, width: int, input_height: int, input_width: int, grid: tuple[int, int]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The mask row of each row of a ``height`` x ``width`` picture, and the mask column of each of its columns."""
    boxed = letterbox(np.zeros((height, width, 3), np.uint8), height=input_height, width=input_width)
    sizes = ((height, boxed.top, input_height, grid[0]), (width, boxed.left, input_width, grid[1]))
    rows, columns = (
        np.clip(((np.arange(length) + 0.5) * boxed.scale + bar) * cells / input_length, 0, cells - 1).astype(np.intp)
        for length, bar, input_length, cells in sizes
    )
    return rows, columns


def _write(canvas: Picture, text: str, *, left: int, bottom: int, scale: float, paper: Colour) -> None:
    """``text`` on a strip of ``paper`` whose lower edge is ``bottom``, moved so that it lies inside the picture."""
    font, ink_width = cv2.FONT_HERSHEY_SIMPLEX, max(1, round(1.5 * scale))
    (text_width, text_height), below = cv2.getTextSize(text, font, scale, ink_width)
    margin = max(2, round(4 * scale))
    strip_height, strip_width = text_height + below + margin, text_width + 2 * margin
    left = max(0, min(left, canvas.shape[1] - strip_width))
    bottom = max(strip_height, bottom)
    luminance = 0.299 * paper[0] + 0.587 * paper[1] + 0.114 * paper[2]  # ITU-R BT.601
    ink = (0, 0, 0) if luminance > 128 else (255, 255, 255)
    cv2.rectangle(canvas, (left, bottom - strip_height), (left + strip_width, bottom - 1), paper, cv2.FILLED)
    cv2.putText(canvas, text, (left + margin, bottom - below), font, scale, ink, ink_width, cv2.LINE_AA)
