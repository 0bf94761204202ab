"""What fixed cameras see, for training: labelled frames with objects of other pictures pasted in. numpy and cv2 only.

A few fixed cameras show few objects, always in the same places, so cutouts of others are pasted anywhere; and they see
them through cheap lenses and encoders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from edgekit.data.augment import Annotated, Image, crop, flip, photometric
from edgekit.data.cutouts import Cutout, read_cutouts
from edgekit.data.datasets import DetectionDataset, open_dataset

PASTED = ("person", "bicycle", "car", "motorcycle", "bus", "truck", "dog")
"""Classes, by COCO's names, of what walks and drives past a camera."""

MOST_PASTED = 6
"""Objects in a frame."""

FARTHEST, NEAREST = 14, 70
"""Their heights in input pixels."""

NARROWEST, WIDEST = 6, 0.4
"""Their widths: in pixels, and as a share of the frame."""


@dataclass(frozen=True, kw_only=True)
class Footage:
    """Frames of fixed cameras, seen through an augmentation of their own."""

    frames: DetectionDataset
    cutouts: Sequence[Cutout]
    """Of classes in ``class_ids`` only."""

    name: str
    """How many frames and cutouts of which data sets, for the model card."""

    class_ids: Mapping[str, int]
    """Class name in ``frames`` and ``cutouts`` -> the model's number of it. Boxes of other classes are ignored."""

    def scene(self, rng: np.random.Generator, *, size: int) -> Annotated:
        """Some frame: often a part of it, with up to six cutouts, mirrored, in another light, through a bad camera.

        ``size`` is the side of the model's input, in pixels: what is pasted is small there.
        """
        sample = self.frames.samples[int(rng.integers(len(self.frames)))]
        numbers = np.array([self.class_ids.get(name, -1) for name in self.frames.classes], np.int64)
        class_ids = numbers[sample.class_ids]
        frame = Annotated(
            image=sample.read(),
            boxes_xyxy=sample.boxes_xyxy,
            class_ids=np.maximum(class_ids, 0),
            ignore=sample.ignore | (class_ids < 0),
        )
        if rng.random() < 0.6:
            frame = crop(frame, rng)
        if rng.random() < 0.5:
            frame = self._paste(frame, rng, size)
        if rng.random() < 0.5:
            frame = flip(frame)
        return replace(frame, image=worn(photometric(frame.image, rng), rng))

    def _paste(self, frame: Annotated, rng: np.random.Generator, size: int) -> Annotated:
        """Up to six cutouts, small, anywhere."""
        image, boxes, class_ids = frame.image.copy(), [], []
        height, width = image.shape[:2]
        for _ in range(int(rng.integers(0, MOST_PASTED + 1))):
            cutout = self.cutouts[int(rng.integers(len(self.cutouts)))]
            rows, columns = cutout.opacity.shape
            tall = int(max(height, width) / size * np.exp(rng.uniform(np.log(FARTHEST), np.log(NEAREST))))
            wide = tall * columns // rows
            if tall >= height or not NARROWEST <= wide < WIDEST * width:
                continue
            small = cutout.resized(height=tall, width=wide)
            small = replace(small, image=photometric(small.image, rng))
            if rng.random() < 0.5:
                small = small.flipped()
            left, top = int(rng.integers(0, width - wide)), int(rng.integers(0, height - tall))
            small.paste(image, left=left, top=top)
            boxes.append([left, top, left + wide, top + tall])
            class_ids.append(self.class_ids[cutout.class_name])
        return Annotated(
            image=image,
            boxes_xyxy=np.concatenate([frame.boxes_xyxy, np.array(boxes, np.float32).reshape(-1, 4)]),
            class_ids=np.concatenate([frame.class_ids, np.array(class_ids, np.int64)]),
            ignore=np.concatenate([frame.ignore, np.zeros(len(boxes), np.bool_)]),
        )


def open_footage(frames: Path, cutouts: Path, class_ids: Mapping[str, int]) -> Footage:
    """The labelled frames in ``frames``, and those of the outlined objects in ``cutouts`` that belong before a camera.

    Raises:
        DataError: one of them is no such data set, or has nothing of the kind.
    """
    footage = open_dataset(frames, "train")
    objects = read_cutouts(cutouts, [name for name in PASTED if name in class_ids])
    shown = f"{len(footage)} frames of {footage.name.removesuffix(' train')}"
    name = f"{shown} and {len(objects)} objects cut out of {cutouts.resolve().name}"
    return Footage(frames=footage, cutouts=objects, name=name, class_ids=class_ids)


def worn(image: Image, rng: np.random.Generator) -> Image:
    """What cheap cameras and encoders do: fewer pixels, then JPEG blocks, each in two pictures of five."""
    height, width = image.shape[:2]
    if rng.random() < 0.4:
        factor = rng.uniform(0.4, 0.9)
        small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        image = np.asarray(cv2.resize(small, (width, height)), np.uint8)
    if rng.random() < 0.4:
        _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 80))])
        image = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
    return image
