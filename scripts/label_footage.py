#!/usr/bin/env python3
"""Label fixed-camera footage with a teacher's boxes.

``scripts/label_footage.py --teacher yolox-nano.param -o DIR CLIP...`` writes ``images/`` and ``instances.json``
(COCO) for ``scripts/adapt_masks.py``. The teacher looks at three sizes, for far and near objects. Its
sure boxes become objects; its doubtful ones are marked ``ignore``, and so count neither as objects nor as background.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from edgekit.boxes import area, clip_boxes, nms
from edgekit.cameras import open_source
from edgekit.data.letterbox import letterbox
from edgekit.errors import CheckpointError, EdgekitError, StorageError
from edgekit.models.yolox import YOLOX

SIZES = (416, 736, 1056)
"""Sides of the square inputs, pixels."""

SURE, DOUBTFUL = 0.4, 0.12
"""Scores from which a box is an object, and from which it may be one."""

SMALLEST = 9.0
"""Square pixels."""

MOST = 300
"""Boxes of a frame, the best first."""


@click.command()
@click.argument("footage", nargs=-1, required=True)
@click.option("--teacher", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
@click.option(
    "--frames", default=100, show_default=True, help="At most this many of each clip or folder, evenly spread."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
def main(footage: tuple[str, ...], teacher: Path, frames: int, output: Path) -> None:
    """Label FOOTAGE: videos, folders of pictures or globs."""
    try:
        label(footage, teacher, frames, output)
    except EdgekitError as error:
        raise click.ClickException(str(error)) from error


def label(footage: Sequence[str], teacher: Path, frames: int, output: Path) -> None:
    """Write the data set; raises :class:`EdgekitError` for a teacher, a clip or a disk that will not do."""
    model = YOLOX(teacher)
    if not model.classes:
        raise CheckpointError(f"{teacher} has other classes than COCO's 80, and the file does not name them")
    (output / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, name in enumerate(footage):
        for index, picture in enumerate(evenly(name, frames)):
            file_name = f"{number}_{index:05d}.png"
            if not cv2.imwrite(str(output / "images" / file_name), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
                raise StorageError(f"{output / 'images' / file_name} could not be written")
            height, width = picture.shape[:2]
            images.append({"id": len(images) + 1, "file_name": file_name, "height": height, "width": width})
            for box, score, class_id in zip(*look(model, picture), strict=True):
                left, top, right, bottom = (float(value) for value in box)
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": len(images),
                        "category_id": int(class_id) + 1,
                        "bbox": [left, top, right - left, bottom - top],
                        "area": (right - left) * (bottom - top),
                        "iscrowd": 0,
                        "ignore": int(score < SURE),
                    }
                )
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(model.classes)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (output / "instances.json").write_text(json.dumps(document), encoding="utf-8")
    print(f"{len(images)} frames, {len(annotations)} boxes, {sum(a['ignore'] for a in annotations)} of them doubtful")


def evenly(name: str, most: int) -> Iterator[NDArray[np.uint8]]:
    """At most ``most`` frames [h, w, 3] of a source, evenly spread over it."""
    with open_source(name) as source:
        count = sum(1 for _ in source)
    chosen = set(np.linspace(0, count - 1, min(most, count)).round().astype(int).tolist())
    with open_source(name) as source:
        yield from (frame.image for frame in source if frame.index in chosen)


def look(
    teacher: YOLOX, picture: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """The teacher's boxes [N, 4] in pixels of ``picture`` [h, w, 3], scores [N] and class ids [N]."""
    found = []
    for size in SIZES:
        boxed = letterbox(picture, height=size, width=size)
        view = teacher(torch.from_numpy(boxed.image).permute(2, 0, 1)[None])
        scores, class_ids = (values.numpy() for values in view.scores[0].max(dim=-1))
        kept = scores >= DOUBTFUL
        found.append((boxed.to_source(view.boxes[0].numpy()[kept]), scores[kept], class_ids[kept]))
    boxes, scores, class_ids = (np.concatenate(part) for part in zip(*found, strict=True))
    boxes = clip_boxes(boxes, height=picture.shape[0], width=picture.shape[1])
    # Objectness has no classes: a van that is also a truck is one object.
    kept = nms(boxes, scores, np.zeros_like(class_ids), iou=0.5, limit=MOST)
    kept = kept[area(boxes)[kept] >= SMALLEST]
    return boxes[kept], scores[kept], class_ids[kept]


if __name__ == "__main__":
    main()
