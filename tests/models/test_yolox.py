"""YOLOX as a teacher: its towers are found by their shape, and its features are those of the published file."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from edgekit.errors import CheckpointError
from edgekit.models.yolox import YOLOXFeatures


def test_features_come_at_three_strides(tmp_path: Path, tiny_yolox: ModuleType) -> None:
    teacher = YOLOXFeatures(tiny_yolox.write(tmp_path))
    images = torch.randint(0, 256, (2, 3, 128, 64), dtype=torch.uint8)
    features = teacher(images)
    assert teacher.channels == (2 * tiny_yolox.FEATURES,) * 3
    assert [tuple(part.shape) for part in features] == [(2, 12, 16, 8), (2, 12, 8, 4), (2, 12, 4, 2)]
    assert not any(part.requires_grad for part in features)


def test_another_network_is_refused(tmp_path: Path, tiny_yolox: ModuleType) -> None:
    with pytest.raises(CheckpointError, match="no YOLOX: it has 2 predictions of box, objectness and classes, not 3"):
        YOLOXFeatures(tiny_yolox.write(tmp_path, levels=2))


def test_the_published_nano_knows_its_objects(shared: Path) -> None:
    """Its features are linear in its predictions: the last layer, applied to them, finds a bus where a bus is."""
    from edgekit.data.datasets import open_dataset
    from edgekit.data.letterbox import letterbox
    from edgekit.models.ncnn_graph import read_ncnn

    param = shared / "weights" / "yolox_nano_ncnn" / "yolox-nano.param"
    graph = read_ncnn(param)
    teacher = YOLOXFeatures(param)
    assert teacher.channels == (128, 128, 128)
    dataset = open_dataset(shared / "data" / "voc07", "val")
    bus = dataset.classes.index("bus")
    sample = max(dataset.samples, key=lambda s: max((np.prod(b[2:] - b[:2]) for b in s.boxes_xyxy[s.class_ids == bus]),
                                                    default=0))  # fmt: skip
    boxed = letterbox(sample.read(), height=320, width=320)
    images = torch.from_numpy(boxed.image).permute(2, 0, 1)[None]
    coarse = teacher(images)[2]
    scores = graph.convolutions["Conv_380"](coarse[:, 64:]).sigmoid()  # 80 classes at stride 32; bus is the sixth
    box = boxed.to_input(sample.boxes_xyxy[sample.class_ids == bus])[0] / 32
    row, column = int((box[1] + box[3]) / 2), int((box[0] + box[2]) / 2)
    assert int(scores[0, :, row, column].argmax()) == 5
