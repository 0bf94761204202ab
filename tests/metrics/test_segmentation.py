"""Mean intersection over union, against counting by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekit.data.segmentation import IGNORED, LabelledPicture, SegmentationDataset
from edgekit.metrics.segmentation import SegmentationMetrics, count, evaluate_segmentation, evaluate_whole_pictures


def by_hand(pairs: list[tuple[np.ndarray, np.ndarray]], classes: int) -> list[float]:
    ious = []
    for number in range(classes):
        both = either = 0
        for true, found in pairs:
            for wanted, got in zip(true.ravel(), found.ravel(), strict=True):
                if wanted != IGNORED:
                    both += int(wanted == number and got == number)
                    either += int(wanted == number or got == number)
        ious.append(both / either if either else float("nan"))
    return ious


@pytest.fixture
def dataset(tmp_path: Path) -> SegmentationDataset:
    generator = np.random.default_rng(4)
    pictures = []
    for name in ("a", "b"):
        labels = generator.choice([0, 1, 2, IGNORED], size=(9, 7)).astype(np.uint8)
        Image.fromarray(labels).save(tmp_path / f"{name}_mask.png")
        Image.fromarray(generator.integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
        pictures.append(
            LabelledPicture(
                image_path=tmp_path / f"{name}.png", mask_path=tmp_path / f"{name}_mask.png", shifted=False, classes=5
            )
        )
    return SegmentationDataset(name="x", classes=("background", "a", "b", "c", "d"), pictures=tuple(pictures))


def guess(image: np.ndarray) -> np.ndarray:
    return (image[..., 0] % 4).astype(np.int64)  # the class 3 is found, but never there; 4 is neither


def test_iou_is_what_it_says(dataset: SegmentationDataset) -> None:
    seen: list[int] = []
    metrics = evaluate_segmentation(dataset, guess, seen=lambda: seen.append(1))
    pairs = [(labels, guess(image)) for image, labels in (picture.read() for picture in dataset.pictures)]
    wanted = by_hand(pairs, 5)
    np.testing.assert_allclose(list(metrics.iou().values()), wanted)
    assert metrics.miou == pytest.approx(np.nanmean(wanted))
    right = sum(int((true == found)[true != IGNORED].sum()) for true, found in pairs)
    assert metrics.pixel_accuracy == pytest.approx(right / sum(int((true != IGNORED).sum()) for true, _ in pairs))
    assert metrics.to_json()["iou_per_class"]["d"] is None
    assert metrics.to_json()["iou_per_class"]["c"] == 0.0
    assert len(seen) == 2


def test_whole_pictures(dataset: SegmentationDataset) -> None:
    metrics = evaluate_whole_pictures(dataset, lambda image: 2)
    share = sum((picture.read()[1] == 2).sum() for picture in dataset.pictures) / sum(
        (picture.read()[1] != IGNORED).sum() for picture in dataset.pictures
    )
    assert metrics.iou()["b"] == pytest.approx(share)


def test_perfect_is_one() -> None:
    labels = np.array([[0, 1], [2, IGNORED]], np.uint8)
    confusion = count(labels, np.where(labels == IGNORED, 0, labels).astype(np.int64), 3)
    assert SegmentationMetrics(classes=("a", "b", "c"), confusion=confusion).miou == 1.0
