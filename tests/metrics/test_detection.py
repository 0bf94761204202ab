"""Average precision against a reference written out by hand, and the rules for boxes to ignore."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.boxes import iou_matrix
from edgekit.data.datasets import DetectionDataset, Sample
from edgekit.detections import Detections
from edgekit.errors import DataError
from edgekit.metrics.detection import RECALL_LEVELS, evaluate_detections

CLASSES = ("cat", "dog", "cow")
Box = tuple[float, float, float, float]
Entry = tuple[Box, int]


def picture(
    image_id: int, truth: list[Entry], *, ignore: list[int] | None = None, crowd: list[int] | None = None
) -> Sample:
    flags = np.isin(np.arange(len(truth)), [*(ignore or []), *(crowd or [])])
    return Sample(
        image_id=image_id,
        path=Path("none.png"),
        boxes_xyxy=np.array([box for box, _ in truth], np.float32).reshape(-1, 4),
        class_ids=np.array([name for _, name in truth], np.int64),
        ignore=flags,
        crowd=np.isin(np.arange(len(truth)), crowd) if crowd else None,
    )


def dataset(*samples: Sample) -> DetectionDataset:
    return DetectionDataset(name="pets val", classes=CLASSES, samples=samples)


def found(*entries: tuple[Box, int, float]) -> Detections:
    entries = tuple(sorted(entries, key=lambda entry: -entry[2]))
    return Detections(
        boxes_xyxy=np.array([box for box, _, _ in entries], np.float32).reshape(-1, 4),
        scores=np.array([score for _, _, score in entries], np.float32),
        class_ids=np.array([name for _, name, _ in entries], np.int64),
    )


def as_found(sample: Sample) -> Detections:
    return Detections(
        boxes_xyxy=sample.boxes_xyxy,
        scores=np.linspace(0.9, 0.8, len(sample.boxes_xyxy), dtype=np.float32),
        class_ids=sample.class_ids,
    )


LEFT: Box = (0, 0, 20, 20)
RIGHT: Box = (40, 0, 60, 20)
FAR: Box = (100, 100, 120, 120)


def test_perfect_detections() -> None:
    data = dataset(picture(1, [(LEFT, 0), (RIGHT, 1)]), picture(2, [(FAR, 0)]), picture(3, []))
    metrics = evaluate_detections(data, {sample.image_id: as_found(sample) for sample in data.samples})
    assert metrics.ap50 == pytest.approx(1)
    assert metrics.map == pytest.approx(1)
    assert metrics.ap50_per_class == pytest.approx({"cat": 1, "dog": 1})  # no cow was there to find
    assert (metrics.images, metrics.objects, metrics.ignored) == (3, 3, 0)
    np.testing.assert_allclose(metrics.mean_precision(), np.ones(101))


def test_nothing_found() -> None:
    metrics = evaluate_detections(dataset(picture(1, [(LEFT, 0)])), {1: Detections.empty()})
    assert (metrics.ap50, metrics.map) == (0, 0)


def test_a_case_worked_out_by_hand() -> None:
    # Scores .9 right, .8 wrong, .75 right, with three cats: precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3. The best
    # precision from a recall on is 1 up to 1/3 (34 of the 101 levels), 2/3 up to 2/3 (33 more), then 0.
    data = dataset(picture(1, [(LEFT, 0), (RIGHT, 0)]), picture(2, [(LEFT, 0)]))
    metrics = evaluate_detections(data, {1: found((LEFT, 0, 0.9), (FAR, 0, 0.8)), 2: found((LEFT, 0, 0.75))})
    assert metrics.ap50 == pytest.approx((34 + 33 * 2 / 3) / 101)
    assert metrics.precision_at_recall["cat"][[0, 33, 34, 66, 67]] == pytest.approx([1, 1, 2 / 3, 2 / 3, 0])
    assert metrics.score_at_recall["cat"][[0, 33, 34, 66, 67]] == pytest.approx([0.9, 0.9, 0.75, 0.75, 0])
    assert metrics.best_score_threshold() == 0.75  # F1 is .5 at .9 and 2/3 at .75


def test_the_best_threshold_cuts_where_false_detections_begin() -> None:
    data = dataset(picture(1, [(LEFT, 0)]), picture(2, [(RIGHT, 1)]))
    found_here = {1: found((LEFT, 0, 0.8), (FAR, 0, 0.4)), 2: found((RIGHT, 1, 0.75), (FAR, 1, 0.5))}
    assert evaluate_detections(data, found_here).best_score_threshold() == 0.75
    nothing = evaluate_detections(data, {1: Detections.empty(), 2: Detections.empty()})
    assert nothing.best_score_threshold() == 0.9


def test_overlap_decides() -> None:
    half = (0, 0, 20, 10)  # IoU .5 with LEFT: right at .5 and wrong from .55 on
    metrics = evaluate_detections(dataset(picture(1, [(LEFT, 0)])), {1: found((half, 0, 0.9))})
    assert metrics.ap50 == pytest.approx(1)
    assert metrics.map == pytest.approx(0.1)


def test_a_second_detection_of_an_object_is_wrong() -> None:
    data = dataset(picture(1, [(LEFT, 0), (RIGHT, 0)]))
    metrics = evaluate_detections(data, {1: found((LEFT, 0, 0.9), (LEFT, 0, 0.8), (RIGHT, 0, 0.7))})
    assert metrics.ap50 == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_another_class_is_wrong_and_a_class_never_shown_counts_for_nothing() -> None:
    data = dataset(picture(1, [(LEFT, 0), (RIGHT, 1)]))
    metrics = evaluate_detections(data, {1: found((LEFT, 1, 0.9), (RIGHT, 1, 0.8), (LEFT, 0, 0.7), (FAR, 2, 0.99))})
    assert metrics.ap50_per_class == pytest.approx({"cat": 1, "dog": 0.5})


def test_a_missed_difficult_object_costs_nothing() -> None:
    data = dataset(picture(1, [(LEFT, 0), (RIGHT, 0)], ignore=[1]))
    metrics = evaluate_detections(data, {1: found((LEFT, 0, 0.9))})
    assert metrics.ap50 == pytest.approx(1)
    assert (metrics.objects, metrics.ignored) == (1, 1)


def test_any_number_of_detections_of_a_difficult_object_is_neither_right_nor_wrong() -> None:
    data = dataset(picture(1, [(LEFT, 0), (RIGHT, 0)], ignore=[1]))
    metrics = evaluate_detections(data, {1: found((RIGHT, 0, 0.95), (RIGHT, 0, 0.9), (LEFT, 0, 0.5))})
    assert metrics.ap50 == pytest.approx(1)


def test_a_small_detection_inside_a_difficult_object_is_wrong() -> None:
    # pycocotools' own way to ignore, iscrowd, would forgive it: all of its area lies inside.
    inside: Box = (45, 5, 50, 10)
    data = dataset(picture(1, [(LEFT, 0), (RIGHT, 0)], ignore=[1]))
    metrics = evaluate_detections(data, {1: found((inside, 0, 0.95), (LEFT, 0, 0.5))})
    assert metrics.ap50 == pytest.approx(0.5)


def test_a_small_detection_inside_a_crowd_is_ignored() -> None:
    inside: Box = (45, 5, 50, 10)
    data = dataset(picture(1, [(LEFT, 0), (RIGHT, 0)], crowd=[1]))
    metrics = evaluate_detections(data, {1: found((inside, 0, 0.95), (inside, 0, 0.9), (LEFT, 0, 0.5))})
    assert metrics.ap50 == pytest.approx(1)


def test_an_object_to_find_goes_before_a_difficult_one() -> None:
    shifted: Box = (0, 0, 20, 19)
    data = dataset(picture(1, [(LEFT, 0), (shifted, 0)], ignore=[1]))
    assert evaluate_detections(data, {1: found((shifted, 0, 0.9))}).ap50 == pytest.approx(1)


def test_nothing_to_find() -> None:
    data = dataset(picture(1, [(LEFT, 0)], ignore=[0]), picture(2, []))
    with pytest.raises(DataError, match="pets val has no box to find in its 2 images"):
        evaluate_detections(data, {1: Detections.empty(), 2: Detections.empty()})


def test_every_image_needs_its_detections() -> None:
    data = dataset(picture(1, [(LEFT, 0)]), picture(2, []))
    with pytest.raises(ValueError, match=r"detections of 1 images for 2 images.*\[2\]"):
        evaluate_detections(data, {1: Detections.empty()})


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    evaluate_detections(dataset(picture(1, [(LEFT, 0)])), {1: Detections.empty()})
    assert capfd.readouterr() == ("", "")


def reference_ap50(data: DetectionDataset, detections: dict[int, Detections], name: int) -> float:
    """VOC's rules in a dozen lines, read at COCO's 101 levels of recall."""
    truth = {s.image_id: (s.boxes_xyxy[s.class_ids == name], s.ignore[s.class_ids == name]) for s in data.samples}
    ranked = [
        (float(d.scores[k]), image, d.boxes_xyxy[k : k + 1])
        for image, d in detections.items()
        for k in range(len(d))
        if d.class_ids[k] == name
    ]
    taken = {image: np.zeros(len(boxes), np.bool_) for image, (boxes, _) in truth.items()}
    right: list[bool] = []
    for _, image, box in sorted(ranked, key=lambda entry: -entry[0]):
        boxes, ignore = truth[image]
        overlap = iou_matrix(box, boxes)[0] if len(boxes) else np.zeros(0, np.float32)
        open_boxes = np.flatnonzero((overlap >= 0.5) & ~ignore & ~taken[image])
        if len(open_boxes):
            taken[image][open_boxes[np.argmax(overlap[open_boxes])]] = True
            right.append(True)
        elif not (overlap[ignore] >= 0.5).any():
            right.append(False)
    return interpolated(np.array(right), sum(int((~ignore).sum()) for _, ignore in truth.values()))


def interpolated(right: NDArray[np.bool_], objects: int) -> float:
    hits = np.cumsum(right)
    precision, recall = hits / np.arange(1, len(right) + 1), hits / objects
    return float(np.mean([precision[recall >= level].max(initial=0) for level in RECALL_LEVELS]))


@pytest.mark.parametrize("seed", range(5))
def test_random_scenes_against_the_reference(seed: int) -> None:
    random = np.random.default_rng(seed)
    samples, detections = [], {}
    for image_id in range(1, 21):
        corners = random.uniform(0, 80, (5, 2))
        boxes = np.concatenate([corners, corners + random.uniform(10, 40, (5, 2))], axis=1)
        names = random.integers(0, 2, 5)
        truth: list[Entry] = [((b[0], b[1], b[2], b[3]), int(n)) for b, n in zip(boxes, names, strict=True)]
        samples.append(picture(image_id, truth, ignore=[int(random.integers(0, 5))]))
        noisy = np.repeat(boxes, 2, axis=0) + random.normal(0, 2.5, (10, 4))
        scores = random.permutation(1000)[:10] / 1000  # no two alike: their order would be a matter of taste
        detections[image_id] = found(
            *[((b[0], b[1], b[2], b[3]), int(n), float(s) + image_id / 1e5) for b, n, s in
              zip(noisy, np.repeat(names, 2), scores, strict=True)]
        )  # fmt: skip
    data = dataset(*samples)
    metrics = evaluate_detections(data, detections)
    for name in (0, 1):
        assert metrics.ap50_per_class[CLASSES[name]] == pytest.approx(reference_ap50(data, detections, name), abs=1e-9)


def test_without_pycocotools() -> None:
    program = (
        "import sys; sys.modules['pycocotools'] = None\n"
        "from edgekit.errors import MissingDependencyError\n"
        "from edgekit.metrics.detection import require_pycocotools\n"
        "try: require_pycocotools()\n"
        "except MissingDependencyError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pycocotools is needed to measure average precision" in done.stdout
    assert 'pip install "edgekit-vision[train]"' in done.stdout
