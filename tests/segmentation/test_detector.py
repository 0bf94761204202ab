"""A segmenter in the place of a detector."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="the miniature is made with PyTorch")
pytest.importorskip("cv2", reason="connected parts are found by OpenCV")

from edgekit.boxes import iou_matrix
from edgekit.segmentation.detector import LONGEST_SIDE, WordDetector
from edgekit.segmentation.pipeline import open_segmenter

Colour = tuple[int, int, int]
RED, BLUE = (220, 30, 30), (30, 60, 220)


@pytest.fixture(scope="module")
def detector(word_bundle: Path) -> WordDetector:
    return WordDetector(open_segmenter(word_bundle))


def scene(
    boxes: dict[tuple[int, int, int], tuple[int, int, int, int]], *, height: int, width: int
) -> NDArray[np.uint8]:
    """Boxes (xyxy) by colour on noise."""
    image = np.random.default_rng(3).integers(90, 150, (height, width, 3), dtype=np.uint8)
    for colour, (left, top, right, bottom) in boxes.items():
        image[top:bottom, left:right] = colour
    return image


def test_masks_become_things_in_pixels_of_the_picture(detector: WordDetector, tiny_tcl: ModuleType) -> None:
    assert detector.classes == tiny_tcl.FOUND
    true = {RED: (40, 60, 180, 240), BLUE: (380, 100, 560, 300)}
    image = scene(true, height=360, width=640)
    result = detector.process(image)
    found = result.detections
    assert sorted(found.class_ids.tolist()) == [0, 1]
    for class_id, box in enumerate(true.values()):
        row = found.class_ids.tolist().index(class_id)
        assert iou_matrix(found.boxes_xyxy[row : row + 1], np.array([box], np.float32))[0, 0] > 0.6
    assert (np.diff(found.scores) <= 0).all()
    assert (found.scores >= detector.spec.score_threshold).all()
    assert result.segments is not None
    assert result.segments.labels.shape == (LONGEST_SIDE * 360 // 640, LONGEST_SIDE)
    shares = np.bincount(result.segments.labels.ravel(), minlength=3)[1:] / result.segments.labels.size
    assert result.segments.shares == pytest.approx(shares)
    assert (result.active_share, result.omg_ran) == (1.0, False)
    assert set(result.timings_ms) == {"letterbox", "graph", "masks", "labels", "things", "total"}


def test_what_was_fitted_before_gives_the_same(detector: WordDetector) -> None:
    image = scene({RED: (10, 10, 60, 60)}, height=96, width=128)
    alone, ahead = detector.process(image), detector.process(image, fitted=detector.fit(image))
    assert alone.segments is not None
    assert ahead.segments is not None
    np.testing.assert_array_equal(alone.segments.labels, ahead.segments.labels)


def test_a_higher_score_reports_less_and_colours_the_same(detector: WordDetector) -> None:
    image = scene({RED: (10, 10, 60, 60)}, height=96, width=128)
    usual, none = detector.process(image), detector.process(image, 1.0)
    assert len(usual.detections) == 1
    assert len(none.detections) == 0
    assert usual.segments is not None
    assert none.segments is not None
    np.testing.assert_array_equal(usual.segments.labels, none.segments.labels)


def test_a_picture_of_a_pixel(detector: WordDetector) -> None:
    result = detector.process(np.zeros((1, 1, 3), np.uint8))
    assert result.segments is not None
    assert result.segments.labels.shape == (1, 1)
