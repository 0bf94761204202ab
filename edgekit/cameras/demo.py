"""A made-up fixed camera: photographs move slowly over a still background, and their boxes are known.

Ten seconds at 15 frames a second: a cat's portrait slides along a wall, a man with a camera walks in from one side and
an astronaut from the other. The same seed gives the same frames; seed 0 is the one to look at, others scale the figures
and may swap the sides. Not a benchmark: three photographs say whether a detector works, not how well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.cameras import Frame, Source
from edgekit.cameras.demo_scene import ASTRONAUT, CAMERAMAN, CAT, CutOut, Photograph, Picture, background, cut_out

HEIGHT, WIDTH, FPS, FRAMES = 480, 640, 15, 150

SEEN_SHARE = 0.5
"""An object counts as there once this share of its box is inside the frame."""


@dataclass(frozen=True, kw_only=True)
class Path:
    """The way of one photograph: it stands at ``places`` and glides between them."""

    photograph: Photograph
    height: int
    """Of the cut-out, in frame pixels."""

    places: tuple[tuple[int, int], ...]
    """(frame, horizontal position of its centre in frame pixels), in order of frames."""

    top: int | None
    """Upper edge in frame pixels; ``None``: it stands on the frame's lower edge."""

    shadow: bool
    """A soft shadow behind it, as a print on a wall has."""


PATHS = (
    Path(photograph=CAT, height=164, places=((0, 150), (149, 470)), top=24, shadow=True),
    Path(photograph=CAMERAMAN, height=225, places=((0, -80), (60, 130), (90, 130), (149, 200)), top=None, shadow=False),
    Path(photograph=ASTRONAUT, height=250, places=((25, 770), (95, 500), (149, 460)), top=None, shadow=False),
)
"""Seed 0; painted in this order."""


class DemoCamera(Source):
    """See above.

    Raises:
        MissingDependencyError: scikit-image, which carries the photographs, is not installed.
    """

    fps = float(FPS)
    frame_count = FRAMES

    def __init__(self, *, seed: int = 0, loop: bool = False) -> None:
        self.endless = loop
        self._name = f"demo:{seed}" if seed else "demo"
        generator = np.random.default_rng(seed)
        # A second figure larger than 1.06 would leave the 260 pixels that the wall and lawn were composed for.
        scales = generator.uniform(0.85, 1.06, len(PATHS)) if seed else np.ones(len(PATHS))
        self._mirrored = bool(seed and generator.integers(2))
        self._background = background(height=HEIGHT, width=WIDTH)
        self._figures = [
            (path, cut_out(path.photograph, height=round(path.height * scale)))
            for path, scale in zip(PATHS, scales, strict=True)
        ]

    def frames(self) -> Iterator[Frame]:
        """The frames with their boxes; painted when asked for."""
        index = 0
        while index < FRAMES or self.endless:
            yield self._paint(index)
            index += 1

    def _paint(self, index: int) -> Frame:
        image = self._background.copy()
        boxes, classes = [], []
        for path, figure in self._figures:
            height, width = figure.opacity.shape[:2]
            centre = _position(path.places, index % FRAMES)
            left = round((WIDTH - centre if self._mirrored else centre) - width / 2)
            top = HEIGHT - height if path.top is None else path.top
            if path.shadow:
                _shade(image, left=left, top=top, height=height, width=width)
            _paste(image, figure, left=left, top=top)
            box = figure.box_xyxy + np.array([left, top, left, top], np.float32)
            inside = np.clip(box, 0, np.array([WIDTH, HEIGHT, WIDTH, HEIGHT], np.float32))
            if _area(inside) >= SEEN_SHARE * _area(box):
                boxes.append(inside)
                classes.append(figure.class_name)
        return Frame(
            image=image,
            index=index,
            time_s=index / FPS,
            source=self._name,
            truth_xyxy=np.array(boxes, np.float32).reshape(-1, 4),
            truth_classes=tuple(classes),
        )


def _position(places: tuple[tuple[int, int], ...], frame: int) -> float:
    """Glide: still at each place, fastest half way between two."""
    starts, positions = zip(*places, strict=True)
    leg = max(0, min(int(np.searchsorted(starts, frame, side="right")) - 1, len(places) - 2))
    share = float(np.clip((frame - starts[leg]) / (starts[leg + 1] - starts[leg]), 0, 1))
    return float(positions[leg] + (positions[leg + 1] - positions[leg]) * share * share * (3 - 2 * share))


def _paste(image: Picture, figure: CutOut, *, left: int, top: int) -> None:
    target, source = _overlap(image, *figure.opacity.shape[:2], left=left, top=top)
    opacity, under = figure.opacity[source], image[target]
    image[target] = np.rint(under * (1 - opacity) + figure.colour[source] * opacity).astype(np.uint8)


def _shade(image: Picture, *, left: int, top: int, height: int, width: int) -> None:
    """Darken where a rectangle's shadow falls, to its lower right."""
    reach = 8  # pixels over which the shadow fades
    profile_y, profile_x = (
        np.clip(np.minimum(np.arange(length + reach) + 1, np.arange(length + reach, 0, -1)) / reach, 0, 1)
        for length in (height, width)
    )
    shade = np.asarray(0.5 * profile_y[:, None, None] * profile_x[None, :, None], np.float32)
    target, source = _overlap(image, *shade.shape[:2], left=left + 2, top=top + 2)
    image[target] = np.rint(image[target] * (1 - shade[source])).astype(np.uint8)


def _overlap(
    image: Picture, height: int, width: int, *, left: int, top: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a ``height`` x ``width`` patch at (left, top) lies in ``image``, and which part of the patch that is."""
    bottom, right = min(top + height, image.shape[0]), min(left + width, image.shape[1])
    row, column = max(top, 0), max(left, 0)
    bottom, right = max(bottom, row), max(right, column)
    return (
        (slice(row, bottom), slice(column, right)),
        (slice(row - top, bottom - top), slice(column - left, right - left)),
    )


def _area(box: NDArray[np.float32]) -> float:
    return float(max(box[2] - box[0], 0) * max(box[3] - box[1], 0))
