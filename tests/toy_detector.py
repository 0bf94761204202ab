"""A small trained detector and its data: red and blue squares on noise, learnt in half a minute on one CPU thread.

Random weights would not do: networks with random weights amplify the noise of int8 until nothing is left, so that
every int8 conversion looks broken.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.boxes import iou_matrix
from edgekit.masks.pyramid import boxes_to_mask
from edgekit.models.anchors import anchor_boxes, anchor_mask
from edgekit.models.checkpoint import Checkpoint, save_checkpoint
from edgekit.models.masked_detector import MaskedDetector
from edgekit.models.registry import build

SIZE = 128
CLASSES = ("red", "blue")
COLOURS = ((230, 60, 60), (50, 70, 220))
BATCH, STEPS = 8, 80


def draw(generator: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
    """One picture [SIZE, SIZE, 3] with one or two squares, their boxes [N, 4] and classes [N]."""
    image = generator.integers(100, 156, (SIZE, SIZE, 3)).astype(np.uint8)
    boxes: list[tuple[int, int, int, int]] = []
    classes = []
    for _ in range(int(generator.integers(1, 3))):
        side = int(generator.integers(28, 60))
        left, top = (int(value) for value in generator.integers(0, SIZE - side, 2))
        if any(left < b[2] and left + side > b[0] and top < b[3] and top + side > b[1] for b in boxes):
            continue
        classes.append(int(generator.integers(0, 2)))
        boxes.append((left, top, left + side, top + side))
        noise = generator.integers(-20, 21, (side, side, 1))
        image[top : top + side, left : left + side] = np.clip(np.array(COLOURS[classes[-1]]) + noise, 0, 255)
    return image, np.array(boxes, np.float32), np.array(classes, np.int64)


def train() -> MaskedDetector:
    """The detector after :data:`STEPS` batches; the same weights on every call."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = build("mobilenetv2-ssdlite-omg", CLASSES, size=SIZE).train()
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = 0.1  # statistics must settle within a few steps
            _fit(model)
            return model.eval()
    finally:
        torch.set_num_threads(threads)


def _fit(model: MaskedDetector) -> None:
    generator = np.random.default_rng(0)
    anchors = anchor_boxes(model.spec)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, STEPS)
    for _ in range(STEPS):
        pictures = [draw(generator) for _ in range(BATCH)]
        images = torch.from_numpy(np.stack([picture[0] for picture in pictures]).astype(np.float32))
        images = ((images - 128) / 128).permute(0, 3, 1, 2)
        masks = [
            boxes_to_mask(boxes, grid=(SIZE // 16, SIZE // 16), height=SIZE, width=SIZE) for _, boxes, _ in pictures
        ]
        grid = torch.from_numpy(np.stack(masks).astype(np.float32)[:, None])
        active = torch.from_numpy(np.stack([anchor_mask(model.spec, mask) for mask in masks]))
        targets = [_targets(anchors, boxes, classes) for _, boxes, classes in pictures]
        wanted, offsets, positive = (torch.from_numpy(np.stack(part)) for part in zip(*targets, strict=True))
        logits, found = model.detector(images, grid)
        loss = _focal(logits, wanted, active) / positive.sum()
        loss = loss + 0.5 * F.smooth_l1_loss(found[positive], offsets[positive], reduction="sum") / positive.sum()
        loss = loss + F.binary_cross_entropy_with_logits(model.omg(images), grid)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        schedule.step()


def _targets(
    anchors: NDArray[np.float32], boxes: NDArray[np.float32], classes: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Class targets [A, C], box offsets [A, 4] and which anchors are positive [A]: SSD's matching."""
    corners = np.concatenate([anchors[:, :2] - anchors[:, 2:] / 2, anchors[:, :2] + anchors[:, 2:] / 2], axis=1)
    overlap = iou_matrix(corners.astype(np.float32), boxes)
    owner, positive = overlap.argmax(axis=1), overlap.max(axis=1) > 0.5
    owner[overlap.argmax(axis=0)] = np.arange(len(boxes))
    positive[overlap.argmax(axis=0)] = True
    wanted = np.zeros((len(anchors), len(CLASSES)), np.float32)
    wanted[np.flatnonzero(positive), classes[owner[positive]]] = 1
    mine = boxes[owner]
    centre, size = (mine[:, :2] + mine[:, 2:]) / 2, mine[:, 2:] - mine[:, :2]
    move = (centre - anchors[:, :2]) / anchors[:, 2:] / 0.1
    return wanted, np.concatenate([move, np.log(size / anchors[:, 2:]) / 0.2], axis=1).astype(np.float32), positive


def _focal(logits: Tensor, wanted: Tensor, active: Tensor) -> Tensor:
    score = torch.sigmoid(logits)
    certainty = score * wanted + (1 - score) * (1 - wanted)
    loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * (1 - certainty) ** 2
    return (loss * active[..., None]).sum()


def break_under_int8(model: MaskedDetector) -> MaskedDetector:
    """The same function in float32, hopeless in int8: one channel is a thousand times larger than its neighbours.

    The projection of the first block makes the channel large, the expansion of the second makes it small again. Between
    the two there is no activation that would clip it, and one scale for all channels rounds the others to nothing.
    """
    first, second = model.detector.backbone.blocks[0], model.detector.backbone.blocks[1]
    with torch.no_grad():
        first.project.bn.weight[0] *= 1e4
        first.project.bn.bias[0] *= 1e4
        second.expand.conv.weight[:, 0] *= 1e-4
    return model


def save(model: MaskedDetector, path: Path) -> Path:
    """Write a checkpoint."""
    provenance = {"training_data": "drawn squares", "starting_weights": "none"}
    save_checkpoint(path, Checkpoint(model=model, provenance=provenance))
    return path


def write_dataset(folder: Path, *, train: int = 100, val: int = 40) -> Path:
    """``images/`` with ``annotations/instances_{train,val}.json``; a split of 0 pictures is left out."""
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    for seed, (split, count) in enumerate((("train", train), ("val", val)), start=1):
        if not count:
            continue
        generator = np.random.default_rng(seed)
        images, annotations = [], []
        for index in range(count):
            picture, boxes, classes = draw(generator)
            name = f"{split}_{index:03}.png"
            cv2.imwrite(str(folder / "images" / name), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
            images.append({"id": index + 1, "file_name": name, "height": SIZE, "width": SIZE})
            for (left, top, right, bottom), class_id in zip(boxes.tolist(), classes.tolist(), strict=True):
                side = right - left
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": index + 1, "category_id": class_id + 1, "iscrowd": 0,
                     "bbox": [left, top, side, bottom - top], "area": side * side}
                )  # fmt: skip
        categories = [{"id": index + 1, "name": name} for index, name in enumerate(CLASSES)]
        document = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
    return folder
