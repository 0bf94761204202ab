"""Scenes of fixed cameras: the frames' own boxes, and those of what is pasted in."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.data.cutouts import Cutout
from edgekit.data.datasets import DetectionDataset, open_dataset
from edgekit.data.footage import MOST_PASTED, Footage, worn
from edgekit.data.training_set import SampleKey, TrainingSet

GREEN = np.array([0, 255, 0])


@pytest.fixture
def frames(write_coco: Callable[..., Path]) -> DetectionDataset:
    """Two dark frames of 120x100, each with a car and a kite."""
    images = [{"id": i, "file_name": f"{i}.png", "height": 100, "width": 120} for i in (1, 2)]
    boxes = [
        {"id": 2 * i + c, "image_id": i, "category_id": c, "bbox": [10 + 50 * (c - 1), 20, 40, 30]}
        for i in (1, 2)
        for c in (1, 2)
    ]
    document = {
        "images": images,
        "annotations": boxes,
        "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "kite"}],
    }
    folder = write_coco(document, "instances.json")
    for i in (1, 2):
        cv2.imwrite(str(folder / "images" / f"{i}.png"), np.full((100, 120, 3), 20, np.uint8))
    assert json.loads((folder / "instances.json").read_text())["images"] == images
    return open_dataset(folder, "train")


@pytest.fixture
def footage(frames: DetectionDataset) -> Footage:
    """The frames, and one green person to paste."""
    person = Cutout(np.full((60, 30, 3), GREEN, np.uint8), np.ones((60, 30), np.float32), "person")
    return Footage(frames=frames, cutouts=[person], name="x", class_ids={"person": 4, "car": 7})


def test_boxes_are_the_models_classes_or_ignored(footage: Footage) -> None:
    seen: set[tuple[int, bool]] = set()
    for seed in range(60):
        scene = footage.scene(np.random.default_rng(seed), size=100)
        assert scene.image.dtype == np.uint8
        assert len(scene.boxes_xyxy) == len(scene.class_ids) == len(scene.ignore) <= 2 + MOST_PASTED
        height, width = scene.image.shape[:2]
        assert (scene.boxes_xyxy >= -1e-3).all()
        assert (scene.boxes_xyxy <= np.array([width, height, width, height]) + 1e-3).all()
        seen |= set(zip(scene.class_ids.tolist(), scene.ignore.tolist(), strict=True))
    # The kite, which the model has no class for, is never an object; a crop may leave too little of the car.
    assert {(7, False), (0, True), (4, False)} <= seen <= {(7, False), (7, True), (0, True), (4, False)}


def test_a_pasted_box_is_where_the_object_is(footage: Footage) -> None:
    pasted = 0
    for seed in range(60):
        scene = footage.scene(np.random.default_rng(seed), size=100)
        for box in scene.boxes_xyxy[scene.class_ids == 4]:
            left, top, right, bottom = box.round().astype(int)
            inside = scene.image[top:bottom, left:right].reshape(-1, 3).astype(int).mean(axis=0)
            # Light and a bad camera change the colour, and a later object may cover an earlier one, also green.
            assert inside[1] > inside[0] + 20
            pasted += 1
    assert pasted > 20


def test_a_scene_depends_on_its_generator_alone(footage: Footage) -> None:
    first, again = (footage.scene(np.random.default_rng(3), size=100) for _ in range(2))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.boxes_xyxy, again.boxes_xyxy)


def test_a_bad_camera_keeps_the_size() -> None:
    image = np.random.default_rng(0).integers(0, 255, (33, 47, 3)).astype(np.uint8)
    pictures = [worn(image, np.random.default_rng(seed)) for seed in range(20)]
    assert {picture.shape for picture in pictures} == {image.shape}
    assert any((picture != image).any() for picture in pictures)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_share_of_footage(frames: DetectionDataset, footage: Footage, share: float) -> None:
    other = replace(footage, class_ids={"car": 7, "kite": 7, "person": 7})
    training = TrainingSet(dataset=frames, seed=0, augmentation=0.0, footage=other, footage_share=share)
    samples = [training[SampleKey(epoch=epoch, index=0, size=64)] for epoch in range(60)]
    scenes = np.mean([(sample.class_ids == 7).all() for sample in samples if len(sample.class_ids)])
    assert scenes == share if share in (0.0, 1.0) else 0.3 < scenes < 0.7
