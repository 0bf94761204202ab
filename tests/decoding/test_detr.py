"""A DETR's queries become detections: the published steps in loops, and whatever an engine may put out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgekit.data.letterbox import Letterboxed
from edgekit.decoding import detr
from edgekit.spec import DetectorSpec

SPEC = DetectorSpec(model="some-detr", classes=("a", "b", "c"), height=320, width=640, anchors=(), max_detections=100)

BOXED = Letterboxed(
    image=np.zeros((320, 640, 3), np.uint8), scale=0.5, left=120, top=0, source_height=640, source_width=800
)
"""A picture of 800x640 between bars of 120 pixels."""


def raw(logits: np.ndarray, boxes: np.ndarray) -> dict[str, np.ndarray]:
    return {"class_logits": logits[None].astype(np.float32), "boxes": boxes[None].astype(np.float32)}


def random_raw(seed: int, *, queries: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return raw(generator.normal(size=(queries, 3)), generator.uniform(0.3, 0.5, (queries, 4)))


def by_loops(tensors: dict[str, np.ndarray], *, threshold: float) -> list[tuple[float, int, list[float]]]:
    found = []
    for logits, (x, y, width, height) in zip(
        tensors["class_logits"][0].tolist(), tensors["boxes"][0].tolist(), strict=True
    ):
        corners = [(x - width / 2) * 640, (y - height / 2) * 320, (x + width / 2) * 640, (y + height / 2) * 320]
        box = [
            min(max((corners[0] - 120) / 0.5, 0), 800),
            min(max(corners[1] / 0.5, 0), 640),
            min(max((corners[2] - 120) / 0.5, 0), 800),
            min(max(corners[3] / 0.5, 0), 640),
        ]
        for name, logit in enumerate(logits):
            if (score := 1 / (1 + math.exp(-logit))) >= threshold:
                found.append((score, name, box))
    return sorted(found, key=lambda entry: -entry[0])[:100]


@pytest.mark.parametrize(("seed", "queries", "threshold"), [(1, 60, 0.0), (2, 60, 0.5), (3, 8, 0.2)])
def test_the_hundred_best_of_all_queries_and_classes(seed: int, queries: int, threshold: float) -> None:
    tensors = random_raw(seed, queries=queries)
    detections = detr.postprocess(SPEC, tensors, BOXED, threshold)
    wanted = by_loops(tensors, threshold=threshold)
    assert len(detections) == len(wanted)
    np.testing.assert_allclose(detections.scores, [score for score, _, _ in wanted], rtol=1e-5)
    assert detections.class_ids.tolist() == [name for _, name, _ in wanted]
    np.testing.assert_allclose(detections.boxes_xyxy, [box for _, _, box in wanted], rtol=1e-5, atol=1e-3)
    assert (detections.boxes_xyxy.dtype, detections.scores.dtype) == (np.float32, np.float32)
    assert detections.class_ids.dtype == np.int64


def test_a_box_by_hand() -> None:
    """The middle of the input is the middle of the picture."""
    detections = detr.postprocess(SPEC, raw(np.array([[-9, 2, -9]]), np.array([[0.5, 0.5, 0.25, 0.5]])), BOXED, 0.5)
    assert detections.class_ids.tolist() == [1]
    np.testing.assert_allclose(detections.boxes_xyxy, [[240, 160, 560, 480]])


def test_a_threshold_only_hides() -> None:
    tensors = random_raw(4, queries=80)
    everything, some = (detr.postprocess(SPEC, tensors, BOXED, threshold) for threshold in (0.0, 0.9))
    assert 0 < len(some) < len(everything)
    np.testing.assert_array_equal(everything.scores[: len(some)], some.scores)
    np.testing.assert_array_equal(everything.boxes_xyxy[: len(some)], some.boxes_xyxy)


def test_a_score_that_equals_the_threshold_is_reported() -> None:
    assert len(detr.postprocess(SPEC, raw(np.zeros((1, 3)), np.full((1, 4), 0.5)), BOXED, 0.5)) == 3


def test_what_is_not_finite_is_nothing_and_hides_nothing_else() -> None:
    tensors = random_raw(5, queries=12)
    good = detr.postprocess(SPEC, tensors, BOXED, 0.0)
    bad = {"class_logits": tensors["class_logits"].repeat(2, axis=1), "boxes": tensors["boxes"].repeat(2, axis=1)}
    for row, value in ((1, np.nan), (3, np.inf), (5, -np.inf), (7, np.nan)):
        bad["boxes"][0, row, row % 4] = value
    bad["class_logits"][0, 9::2] = np.nan
    found = detr.postprocess(SPEC, bad, BOXED, 0.0)
    np.testing.assert_array_equal(found.scores, good.scores)
    np.testing.assert_array_equal(found.boxes_xyxy, good.boxes_xyxy)


@pytest.mark.filterwarnings("error")
def test_infinite_and_enormous_numbers_give_no_warning() -> None:
    logits = np.array([[np.inf, -np.inf, 1e30], [-1e30, 0, 0], [0, 0, 0]])
    boxes = np.array([[0.5, 0.5, 0.2, 0.2], [3e38, 0.5, 1, 1], [0.5, -3e38, 1, 3e38]])
    detections = detr.postprocess(SPEC, raw(logits, boxes), BOXED, 0.4)
    assert np.isfinite(detections.boxes_xyxy).all()
    assert detections.scores[:2].tolist() == [1, 1]


def test_boxes_in_the_bars_and_without_area_are_dropped() -> None:
    boxes = np.array([[0.05, 0.5, 0.05, 0.5], [0.5, 0.5, 0, 0.5], [0.5, 0.5, 0.1, 0.1]])
    assert len(detr.postprocess(SPEC, raw(np.array([[5, -9, -9]] * 3), boxes), BOXED, 0.5)) == 1


def test_nothing_found_is_an_empty_result() -> None:
    detections = detr.postprocess(SPEC, raw(np.full((5, 3), -9), np.full((5, 4), 0.5)), BOXED, 0.5)
    assert len(detections) == 0
    assert detections.boxes_xyxy.shape == (0, 4)


def test_candidates_have_a_row_a_query() -> None:
    tensors = random_raw(6, queries=7)
    candidates = detr.candidates(SPEC, tensors)
    assert candidates.scores.shape == (7, 3)
    assert candidates.boxes.shape == (7, 1, 4)
    assert candidates.places.tolist() == list(range(7))
    x, y, width, height = tensors["boxes"][0, 2] * [640, 320, 640, 320]
    wanted = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    np.testing.assert_allclose(candidates.boxes[2, 0], wanted, rtol=1e-5)


def test_engines_are_compared_query_by_query_in_one_order() -> None:
    tensors = random_raw(6, queries=40)
    order = np.random.default_rng(7).permutation(40)
    moved = {name: value[:, order] + np.float32(1e-6) for name, value in tensors.items()}
    found = detr.aligned(tensors, moved)
    for name, value in tensors.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5)
    assert detr.aligned(tensors, tensors)["boxes"].shape == (1, 40, 4)


def test_what_is_never_reported_is_not_compared() -> None:
    logits = np.full((20, 3), -9)
    logits[[4, 11]] = 2
    tensors = raw(logits, np.full((20, 4), 0.5))
    first, second = detr.compared(SPEC, tensors, tensors)
    assert first["class_logits"].shape == second["class_logits"].shape == (2, 3)
    assert first["boxes"].shape == (2, 4)
    nothing = raw(np.arange(60).reshape(20, 3) / 100 - 9, np.full((20, 4), 0.5))
    assert len(detr.compared(SPEC, nothing, nothing)[0]["boxes"]) == 2, "the best tenth"
