"""A data set that is drawn here: coloured shapes on noise, two classes, small enough to train on in seconds."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

SIZE = 96


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``images/`` with ``annotations/instances_{train,val}.json``: 24 and 8 pictures of 96x96 pixels."""
    root = tmp_path_factory.mktemp("shapes")
    (root / "images").mkdir()
    (root / "annotations").mkdir()
    rng = np.random.default_rng(7)
    for split, first, count in (("train", 1, 24), ("val", 101, 8)):
        images, annotations = [], []
        for image_id in range(first, first + count):
            picture = rng.integers(90, 150, (SIZE, SIZE, 3)).astype(np.uint8)
            for category in rng.permutation([1, 2])[: rng.integers(1, 3)]:
                width, height = (int(value) for value in rng.integers(28, 48, 2))
                left, top = int(rng.integers(0, SIZE - width)), int(rng.integers(0, SIZE - height))
                if category == 1:
                    picture[top : top + height, left : left + width] = (30, 30, 220)
                else:
                    centre, axes = (left + width // 2, top + height // 2), (width // 2, height // 2)
                    cv2.ellipse(picture, centre, axes, 0, 0, 360, (220, 200, 30), -1)
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": image_id, "category_id": int(category),
                     "bbox": [left, top, width, height], "area": width * height, "iscrowd": 0}
                )  # fmt: skip
            cv2.imwrite(str(root / "images" / f"{image_id}.png"), picture)
            images.append({"id": image_id, "file_name": f"{image_id}.png", "width": SIZE, "height": SIZE})
        document = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 1, "name": "box"}, {"id": 2, "name": "disc"}],
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
    return root
