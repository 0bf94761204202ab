"""YOLOX as a teacher: its towers are found by their shape, and its features are those of the published file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.errors import CheckpointError
from edgekit.models.yolox import YOLOXFeatures

FEATURES, CLASSES = 6, 3


def tiny_yolox(folder: Path, *, levels: int = 3) -> Path:
    """A YOLOX in miniature: strides 8, 16 and 32, towers of six channels, three classes."""
    generator = np.random.default_rng(0)
    lines, raw = ["Input images 0 1 images"], b""

    def convolution(name: str, source: str, result: str, inputs: int, outputs: int, kernel: int, stride: int = 1,
                    activation: int = 0) -> None:  # fmt: skip
        nonlocal raw
        count = inputs * outputs * kernel * kernel
        lines.append(f"Convolution {name} 1 1 {source} {result} 0={outputs} 1={kernel} 3={stride} 4={kernel // 2} 5=1 "
                     f"6={count} 9={activation}")  # fmt: skip
        weight = generator.normal(size=count, scale=(inputs * kernel * kernel) ** -0.5).astype(np.float32)
        raw += bytes(4) + weight.tobytes() + np.zeros(outputs, np.float32).tobytes()

    convolution("down_a", "images", "half", 3, FEATURES, 3, 2)
    convolution("down_b", "half", "quarter", FEATURES, FEATURES, 3, 2)
    trunk = "quarter"
    for level in range(levels):
        convolution(f"down_{level}", trunk, f"trunk_{level}", FEATURES, FEATURES, 3, 2)
        lines.append(f"Split fork_{level} 1 3 trunk_{level} next_{level} to_box_{level} to_class_{level}")
        trunk = f"next_{level}"
        for tower in ("box", "class"):
            convolution(f"{tower}_{level}", f"to_{tower}_{level}", f"{tower}_pre_{level}", FEATURES, FEATURES, 3)
            lines.append(f"Swish {tower}_act_{level} 1 1 {tower}_pre_{level} {tower}_tower_{level}")
        lines.append(f"Split pair_{level} 1 2 box_tower_{level} for_box_{level} for_object_{level}")
        convolution(f"predict_box_{level}", f"for_box_{level}", f"p_box_{level}", FEATURES, 4, 1)
        convolution(f"predict_object_{level}", f"for_object_{level}", f"p_object_{level}", FEATURES, 1, 1, 1, 4)
        convolution(f"predict_class_{level}", f"class_tower_{level}", f"p_class_{level}", FEATURES, CLASSES, 1, 1, 4)
        lines.append(f"Concat concat_{level} 3 1 p_box_{level} p_object_{level} p_class_{level} prediction_{level}")
    path = folder / "tiny-yolox.param"
    path.write_text("\n".join(["7767517", "0 0", *lines, ""]))
    path.with_suffix(".bin").write_bytes(raw)
    return path


def test_features_come_at_three_strides(tmp_path: Path) -> None:
    teacher = YOLOXFeatures(tiny_yolox(tmp_path))
    images = torch.randint(0, 256, (2, 3, 128, 64), dtype=torch.uint8)
    features = teacher(images)
    assert teacher.channels == (2 * FEATURES,) * 3
    assert [tuple(part.shape) for part in features] == [(2, 12, 16, 8), (2, 12, 8, 4), (2, 12, 4, 2)]
    assert not any(part.requires_grad for part in features)


def test_another_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no YOLOX: it has 2 predictions of box, objectness and classes, not 3"):
        YOLOXFeatures(tiny_yolox(tmp_path, levels=2))


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
