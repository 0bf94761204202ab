"""Training augmentation in the manner of SSD (arXiv 1512.02325, section 2.2 and 3.6): photometric, expand, crop, flip.

Two things are added. Mosaics, as in YOLOv4 (arXiv 2004.10934, section 3.3): parts of four pictures in one, so that
every object is seen among other neighbours. And sparse scenes: photographs are taken *of* something, and objects cover
half of a VOC picture, but 3 to 4 % of a fixed camera's. An objectness network that has only seen photographs calls
every doubtful cell an object. So some pictures are shrunk onto an object-free part of another one, a sparse scene with
real clutter around, as sharp as the object itself: an enlarged, blurred backdrop would teach that whatever is sharp is
an object.

Every function takes the sample's own random generator, so a sample depends on (seed, epoch, index) alone: training
can be killed and resumed, or split over processes, and sees the same pictures.

An image is [h, w, 3] RGB uint8, boxes [N, 4] are xyxy pixels of that image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekit.data.letterbox import PADDING_VALUE

Image = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Annotated:
    """A picture with its boxes."""

    image: Image
    boxes_xyxy: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    ignore: NDArray[np.bool_]

    def keep(self, image: Image, boxes: NDArray[np.float32], kept: NDArray[np.bool_]) -> Annotated:
        """The same sample with a new picture and only the ``kept`` boxes."""
        return Annotated(image=image, boxes_xyxy=boxes[kept], class_ids=self.class_ids[kept], ignore=self.ignore[kept])


Backdrop = Callable[[np.random.Generator], Image | None]
"""Gives an object-free picture, or ``None`` when it finds none."""

Another = Callable[[np.random.Generator], Annotated]
"""Gives some other sample of the data set."""

LEAST_VISIBLE, LEAST_LEFT = 0.02, 0.4
"""Of a cut box's area: less than the first is dropped, less than the second ignored."""


def augment(
    sample: Annotated,
    rng: np.random.Generator,
    *,
    strength: float = 1.0,
    mosaics: float = 0.0,
    another: Another | None = None,
    sparse_scenes: float = 0.0,
    backdrop: Backdrop | None = None,
) -> Annotated:
    """All augmentations in SSD's order; mosaics are cut already, and cropping a sparse scene would undo it.

    Args:
        sample: the picture.
        rng: its own generator.
        strength: 0..1, scales how often the geometric ones happen.
        mosaics: 0..1, share of the pictures that become mosaics.
        another: where mosaics take their other three pictures from; without it there are none.
        sparse_scenes: 0..1, share of the others of the pictures that become sparse scenes, where a backdrop is found.
        backdrop: where sparse scenes take their background from; without it there are none.
    """
    if another is not None and rng.random() < mosaics * strength:
        parts = (sample, *(another(rng) for _ in range(3)))
        return _relit(mosaic([flip(part) if rng.random() < 0.5 else part for part in parts], rng), rng)
    sample = _relit(sample, rng)
    scene = backdrop(rng) if backdrop is not None and rng.random() < sparse_scenes * strength else None
    if scene is not None:
        sample = sparse_scene(sample, rng, scene)
    else:
        if rng.random() < 0.4 * strength:
            sample = expand(sample, rng)
        if rng.random() < 0.7 * strength:
            sample = crop(sample, rng)
    if rng.random() < 0.5:
        sample = flip(sample)
    return sample


def _relit(sample: Annotated, rng: np.random.Generator) -> Annotated:
    return sample.keep(photometric(sample.image, rng), sample.boxes_xyxy, np.ones(len(sample.boxes_xyxy), np.bool_))


def photometric(image: Image, rng: np.random.Generator) -> Image:
    """Random brightness, contrast, saturation and hue, each with probability one half."""
    values = image.astype(np.float32)
    if rng.random() < 0.5:
        values += rng.uniform(-32, 32)
    if rng.random() < 0.5:
        values *= rng.uniform(0.6, 1.4)
    if rng.random() < 0.5:
        grey = values @ np.array([0.299, 0.587, 0.114], np.float32)
        values = grey[..., None] + (values - grey[..., None]) * np.float32(rng.uniform(0.4, 1.6))
    changed = np.clip(values, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        hsv = cv2.cvtColor(changed, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(np.int16) + int(rng.integers(-9, 10))) % 180
        changed = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)
    return changed


def expand(sample: Annotated, rng: np.random.Generator) -> Annotated:
    """Zoom out by up to 2.5x on a grey canvas: small objects from large ones."""
    height, width = sample.image.shape[:2]
    factor = rng.uniform(1.0, 2.5)
    big_height, big_width = int(height * factor), int(width * factor)
    top, left = int(rng.integers(0, big_height - height + 1)), int(rng.integers(0, big_width - width + 1))
    canvas = np.full((big_height, big_width, 3), PADDING_VALUE, np.uint8)
    canvas[top : top + height, left : left + width] = sample.image
    boxes = sample.boxes_xyxy + np.array([left, top, left, top], np.float32)
    return sample.keep(canvas, boxes, np.ones(len(boxes), np.bool_))


def sparse_scene(sample: Annotated, rng: np.random.Generator, backdrop: Image) -> Annotated:
    """The picture shrunk to between 1/1.5 and 1/6 of its sides, somewhere on ``backdrop``; the size stays as it was.

    The backdrop, any [h, w, 3], keeps about its own scale and goes on mirrored where it is too small.
    """
    height, width = sample.image.shape[:2]
    zoom = rng.uniform(0.7, 1.4)
    scene = cv2.resize(backdrop, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)[:height, :width]
    below, right = height - scene.shape[0], width - scene.shape[1]
    canvas = np.asarray(cv2.copyMakeBorder(scene, 0, below, 0, right, cv2.BORDER_REFLECT), np.uint8)
    factor = float(np.exp(rng.uniform(np.log(1.5), np.log(6.0))))
    small_w, small_h = max(1, round(width / factor)), max(1, round(height / factor))
    small = cv2.resize(sample.image, (small_w, small_h), interpolation=cv2.INTER_AREA)
    top, left = int(rng.integers(0, height - small_h + 1)), int(rng.integers(0, width - small_w + 1))
    canvas[top : top + small_h, left : left + small_w] = small
    shrink = np.array([small_w / width, small_h / height] * 2, np.float32)
    boxes = sample.boxes_xyxy * shrink + np.array([left, top, left, top], np.float32)
    return sample.keep(canvas, boxes, np.ones(len(boxes), np.bool_))


def object_free_window(image: Image, boxes_xyxy: NDArray[np.float32], rng: np.random.Generator) -> Image | None:
    """A window of 30..80 % of each side that touches no box; ``None`` if ten tries find none.

    Args:
        image: [h, w, 3].
        boxes_xyxy: [N, 4] all boxes of the picture, ignored ones too.
        rng: the sample's own generator.
    """
    height, width = image.shape[:2]
    for _ in range(10):
        window_w, window_h = int(width * rng.uniform(0.3, 0.8)), int(height * rng.uniform(0.3, 0.8))
        if window_w < 32 or window_h < 32:
            continue
        left, top = int(rng.integers(0, width - window_w + 1)), int(rng.integers(0, height - window_h + 1))
        apart = (
            (boxes_xyxy[:, 2] <= left)
            | (boxes_xyxy[:, 0] >= left + window_w)
            | (boxes_xyxy[:, 3] <= top)
            | (boxes_xyxy[:, 1] >= top + window_h)
        )
        if apart.all():
            return image[top : top + window_h, left : left + window_w]
    return None


def crop(sample: Annotated, rng: np.random.Generator) -> Annotated:
    """Zoom in on a random window of 30..100 % of each side; boxes whose centre falls outside it are dropped.

    Windows that would lose every box are tried again; after 20 tries the sample stays as it is. Boxes cut to less
    than 40 % of their area become ``ignore``: too little is left to learn their class from, or to call background.
    """
    height, width = sample.image.shape[:2]
    for _ in range(20):
        scale, ratio = rng.uniform(0.3, 1.0), np.exp(rng.uniform(-0.5, 0.5))
        window_w, window_h = int(width * min(1.0, scale * ratio**0.5)), int(height * min(1.0, scale / ratio**0.5))
        if window_w < 32 or window_h < 32:
            continue
        left, top = int(rng.integers(0, width - window_w + 1)), int(rng.integers(0, height - window_h + 1))
        window = np.array([left, top, left + window_w, top + window_h], np.float32)
        boxes = sample.boxes_xyxy
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside = ((centres > window[:2]) & (centres < window[2:])).all(axis=1)
        if len(boxes) and not inside.any():
            continue
        # A box whose centre is outside is no training target, but the part of it that shows is not background either.
        return _cut_out(replace(sample, ignore=sample.ignore | ~inside), left, top, window_w, window_h)
    return sample


def mosaic(parts: Sequence[Annotated], rng: np.random.Generator) -> Annotated:
    """A square window of four pictures that meet in a point, at between half their size and their own.

    The pictures should be of about one size; boxes that the window cuts are treated as those of :func:`crop`.
    """
    side = max(max(part.image.shape[:2]) for part in parts)
    canvas = np.full((2 * side, 2 * side, 3), PADDING_VALUE, np.uint8)
    boxes = []
    for index, part in enumerate(parts):
        height, width = part.image.shape[:2]
        left, top = (side if index % 2 else side - width), (side if index // 2 else side - height)
        canvas[top : top + height, left : left + width] = part.image
        boxes.append(part.boxes_xyxy + np.array([left, top, left, top], np.float32))
    whole = Annotated(
        image=canvas,
        boxes_xyxy=np.concatenate(boxes),
        class_ids=np.concatenate([part.class_ids for part in parts]),
        ignore=np.concatenate([part.ignore for part in parts]),
    )
    extent = int(side * rng.uniform(1.0, 2.0))
    # The meeting point is in the window's middle half: each picture shows.
    left, top = (side - int(extent * rng.uniform(0.25, 0.75)) for _ in range(2))
    left, top = (int(np.clip(start, 0, 2 * side - extent)) for start in (left, top))
    return _cut_out(whole, left, top, extent, extent)


def _cut_out(sample: Annotated, left: int, top: int, width: int, height: int) -> Annotated:
    """The window of that place and size. Of a box cut short too little may be left to learn its class from."""
    boxes = sample.boxes_xyxy
    cut = boxes.copy()
    cut[:, 0::2] = np.clip(boxes[:, 0::2], left, left + width) - left
    cut[:, 1::2] = np.clip(boxes[:, 1::2], top, top + height) - top
    left_over = _area(cut) / np.maximum(_area(boxes), 1e-6)
    visible = left_over > LEAST_VISIBLE
    return Annotated(
        image=np.ascontiguousarray(sample.image[top : top + height, left : left + width]),
        boxes_xyxy=cut[visible],
        class_ids=sample.class_ids[visible],
        ignore=(sample.ignore | (left_over < LEAST_LEFT))[visible],
    )


def flip(sample: Annotated) -> Annotated:
    """Mirror left to right."""
    width = sample.image.shape[1]
    boxes = sample.boxes_xyxy.copy()
    boxes[:, 0], boxes[:, 2] = width - sample.boxes_xyxy[:, 2], width - sample.boxes_xyxy[:, 0]
    return sample.keep(np.ascontiguousarray(sample.image[:, ::-1]), boxes, np.ones(len(boxes), np.bool_))


def _area(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    area: NDArray[np.float32] = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return area
