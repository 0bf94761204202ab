"""YOLOX as a teacher: its towers are found by their shape, and its features are those of the published file."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from edgekit.errors import CheckpointError
from edgekit.models.yolox import YOLOX


def test_features_and_predictions_come_at_three_strides(tmp_path: Path, tiny_yolox: ModuleType) -> None:
    teacher = YOLOX(tiny_yolox.write(tmp_path))
    view = teacher(torch.randint(0, 256, (2, 3, 128, 64), dtype=torch.uint8))
    assert teacher.channels == (2 * tiny_yolox.FEATURES,) * 3
    assert [tuple(part.shape) for part in view.features] == [(2, 12, 16, 8), (2, 12, 8, 4), (2, 12, 4, 2)]
    places = 16 * 8 + 8 * 4 + 4 * 2
    assert view.boxes.shape == (2, places, 4)
    assert view.scores.shape == (2, places, tiny_yolox.CLASSES)
    assert teacher.classes == ()
    assert not any(part.requires_grad for part in (*view.features, view.boxes, view.scores))


def test_another_network_is_refused(tmp_path: Path, tiny_yolox: ModuleType) -> None:
    with pytest.raises(CheckpointError, match="no YOLOX: it has 2 predictions of box, objectness and classes, not 3"):
        YOLOX(tiny_yolox.write(tmp_path, levels=2))


def test_the_published_nano_knows_its_objects(shared: Path) -> None:
    """It finds the largest bus of the data, and places it well."""
    from edgekit.boxes import iou_matrix
    from edgekit.data.datasets import open_dataset
    from edgekit.data.letterbox import letterbox

    teacher = YOLOX(shared / "weights" / "yolox_nano_ncnn" / "yolox-nano.param")
    assert teacher.channels == (128, 128, 128)
    assert len(teacher.classes) == 80
    dataset = open_dataset(shared / "data" / "voc07", "val")
    bus = dataset.classes.index("bus")
    sample = max(dataset.samples, key=lambda s: max((np.prod(b[2:] - b[:2]) for b in s.boxes_xyxy[s.class_ids == bus]),
                                                    default=0))  # fmt: skip
    boxed = letterbox(sample.read(), height=320, width=320)
    view = teacher(torch.from_numpy(boxed.image).permute(2, 0, 1)[None])
    place, class_id = divmod(int(view.scores[0].argmax()), 80)
    assert teacher.classes[class_id] == "bus"
    overlaps = iou_matrix(
        view.boxes[0, place : place + 1].numpy(), boxed.to_input(sample.boxes_xyxy[sample.class_ids == bus])
    )
    assert overlaps.max() > 0.7
