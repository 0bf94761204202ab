"""What the demo shows: objects cut out of photographs in scikit-image's wheel, before a background of its textures.

All of them are free of rights (the notes in ``skimage.data`` say so): ``astronaut`` is a NASA picture in the public
domain; ``chelsea`` (Stefan van der Walt), ``camera`` (Lav Varshney), ``brick`` and ``grass`` are CC0. The files are
read from the installed wheel without importing scikit-image; nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekit.cameras.images import read_picture
from edgekit.errors import MissingDependencyError, SourceError

Picture = NDArray[np.uint8]

HORIZON = 290 / 480
"""Share of the frame's height that the wall takes; the lawn has the rest."""

PRINT_BORDER = 14
"""White border of a print, in photograph pixels."""


@dataclass(frozen=True, kw_only=True)
class Photograph:
    """One object of the demo, measured by hand in its photograph."""

    file: str
    class_name: str

    box_xyxy: tuple[int, int, int, int]
    """Tight box of the object in photograph pixels, right and bottom exclusive."""

    outline: tuple[tuple[int, int], ...]
    """Polygon to cut out along, in photograph pixels; empty: the whole photograph, as a print with a white border."""


ASTRONAUT = Photograph(
    file="astronaut.png",
    class_name="person",
    box_xyxy=(19, 16, 362, 512),  # hair to the lower edge, sleeve to sleeve; the helmet on her lap is not she
    outline=(
        *((20, 512), (24, 470), (19, 420), (20, 390), (26, 345), (37, 300), (46, 262), (70, 236), (98, 218)),
        *((112, 205), (113, 188), (120, 184), (131, 163), (148, 152), (168, 148), (184, 149), (183, 132), (176, 129)),
        *((172, 117), (160, 111), (154, 98), (153, 70), (160, 52), (176, 42), (190, 34), (204, 22), (224, 16)),
        *((244, 17), (262, 26), (280, 36), (293, 55), (301, 82), (300, 100), (292, 113), (284, 124), (276, 128)),
        *((274, 136), (268, 137), (264, 150), (257, 166), (256, 175), (276, 186), (292, 206), (302, 226), (304, 236)),
        *((321, 244), (338, 260), (347, 285), (357, 318), (362, 347), (388, 343), (416, 344), (444, 353), (470, 374)),
        *((488, 405), (496, 440), (502, 456), (510, 470), (511, 512)),
    ),
)

CAMERAMAN = Photograph(
    file="camera.png",
    class_name="person",
    box_xyxy=(0, 63, 331, 512),  # the back is cut by the left edge; the glove behind the camera is the right end
    outline=(
        *((0, 512), (0, 256), (12, 236), (28, 212), (42, 196), (56, 172), (72, 148), (96, 133), (122, 125)),
        *((134, 122), (148, 107), (163, 105), (166, 96), (176, 80), (190, 70), (205, 63), (225, 66), (240, 74)),
        *((252, 88), (268, 102), (271, 118), (268, 130), (256, 131), (256, 139), (300, 141), (325, 139), (325, 150)),
        *((320, 158), (320, 168), (329, 170), (332, 186), (326, 206), (318, 222), (306, 227), (300, 240), (303, 272)),
        *((280, 288), (262, 300), (246, 312), (228, 306), (207, 294), (194, 314), (178, 336), (160, 358), (141, 382)),
        *((147, 410), (150, 440), (150, 512)),
    ),
)

CAT = Photograph(
    file="chelsea.png",
    class_name="cat",
    box_xyxy=(0, 0, 399, 300),  # fur touches the left, upper and lower edges; the ear's tip is the right end
    outline=(),
)


@dataclass(frozen=True, kw_only=True)
class CutOut:
    """A photograph scaled and ready to be pasted."""

    colour: NDArray[np.float32]
    """[h, w, 3] RGB, 0..255."""

    opacity: NDArray[np.float32]
    """[h, w, 1], 0..1, soft at the outline."""

    box_xyxy: NDArray[np.float32]
    """[4] tight box of the object, in pixels of the cut-out."""

    class_name: str


def cut_out(photograph: Photograph, *, height: int) -> CutOut:
    """Cut ``photograph`` out and scale it to ``height`` pixels (of the outline, or of the print with its border)."""
    colour = _read(photograph.file)
    box = np.array(photograph.box_xyxy, np.float32)
    if photograph.outline:
        outline = np.array(photograph.outline, np.int32)
        stencil = np.zeros(colour.shape[:2], np.float32)
        cv2.fillPoly(stencil, [outline], 1.0)
        stencil = _float(cv2.erode(stencil, np.ones((3, 3), np.uint8)))  # drop the rim that holds old background
        opacity = _float(cv2.GaussianBlur(stencil, (0, 0), 1.5, borderType=cv2.BORDER_REPLICATE))
        (left, top), (right, bottom) = outline.min(axis=0), outline.max(axis=0)
        colour, opacity = colour[top:bottom, left:right], opacity[top:bottom, left:right]
        box -= np.array([left, top, left, top], np.float32)
    else:
        edge = PRINT_BORDER
        colour = np.pad(colour, ((edge, edge), (edge, edge), (0, 0)), constant_values=242)
        opacity = np.ones(colour.shape[:2], np.float32)
        box += edge
    scale = height / colour.shape[0]
    size = (round(colour.shape[1] * scale), height)
    return CutOut(
        colour=_float(cv2.resize(colour.astype(np.float32), size, interpolation=cv2.INTER_AREA)),
        opacity=_float(cv2.resize(opacity, size, interpolation=cv2.INTER_AREA))[..., None],
        box_xyxy=box * np.float32(scale),
        class_name=photograph.class_name,
    )


def background(*, height: int, width: int) -> Picture:
    """A brick wall behind a lawn, [height, width, 3] RGB: the grey textures tinted, the lawn laid in perspective."""
    horizon = round(height * HORIZON)
    bricks = cv2.rotate(_read("brick.png")[..., 0], cv2.ROTATE_90_CLOCKWISE)  # its courses run upwards
    wall = _tint(
        _float(cv2.resize(bricks, (width, horizon), interpolation=cv2.INTER_AREA)), (58, 30, 22), (232, 196, 172)
    )
    lawn = _tint(_lawn(height=height - horizon, width=width), (22, 34, 14), (190, 204, 140))
    scene = np.concatenate([wall, lawn])
    rows, columns = np.arange(height)[:, None, None], np.arange(width)[None, :, None]
    scene *= 1 - 0.45 * np.exp(-np.abs(rows - horizon) / 8)  # the shade where wall and lawn meet
    scene *= 1.08 - 0.3 * columns / width  # the light comes from the left
    return np.asarray(np.clip(scene, 0, 255), np.uint8)


def _lawn(*, height: int, width: int) -> NDArray[np.float32]:
    grass = _read("grass.png")[..., 0]
    tiles = np.concatenate([np.concatenate([grass[:, ::-1], grass] * 2, axis=1)] * 2)  # mirrored, so it has no seams
    tall, wide = tiles.shape
    left, right = 0.07 * wide, 0.86 * wide  # off centre: a mirror line in the middle of the frame catches the eye
    ground = np.array([[left, 0], [right, 0], [right, tall], [left, tall]], np.float32)
    seen = np.array([[0, 0], [width, 0], [1.9 * width, height], [-0.9 * width, height]], np.float32)
    laid = cv2.warpPerspective(tiles, cv2.getPerspectiveTransform(ground, seen), (width, height), flags=cv2.INTER_AREA)
    return _float(laid)


def _tint(grey: NDArray[np.float32], dark: tuple[int, int, int], light: tuple[int, int, int]) -> NDArray[np.float32]:
    share = (grey / 255)[..., None]
    return _float(np.array(dark, np.float32) * (1 - share) + np.array(light, np.float32) * share)


def _read(file: str) -> Picture:
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise MissingDependencyError("scikit-image", "demo", "show the made-up camera, whose photographs it carries")
    path = Path(found.origin).parent / "data" / file
    if not path.is_file():
        raise SourceError(
            f"this scikit-image does not carry {file}, which the demo shows: {path} is not there.\n"
            'Try: pip install --force-reinstall "edgekit-vision[demo]"'
        )
    return read_picture(path)


def _float(array: object) -> NDArray[np.float32]:
    return np.asarray(array, np.float32)
