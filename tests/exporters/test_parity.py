"""The distance between two pipelines, on the tiny detector and on a copy of it that is wrong in a known way."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edgekit.backends import Engine, Tensors, load_engine
from edgekit.detections import Detections
from edgekit.exporters.parity import Parity, match_detections, measure_parity
from edgekit.masks.sources import omg
from edgekit.pipeline import Pipeline


class Shifted:
    """An engine that adds a constant to some outputs of another one."""

    def __init__(self, engine: Engine, **shifts: float) -> None:
        self.name, self.takes_pixels = f"shifted {engine.name}", engine.takes_pixels
        self._engine, self._shifts = engine, shifts

    def run(self, inputs: Tensors) -> Tensors:
        outputs = self._engine.run(inputs)
        return {name: value + np.float32(self._shifts.get(name, 0)) for name, value in outputs.items()}


@pytest.fixture
def pipeline(tmp_path: Path, tiny: ModuleType) -> Pipeline:
    files = tiny.graphs(tmp_path, "onnx")
    engines = [load_engine("onnxruntime", tmp_path / files[name], threads=1) for name in ("omg", "detector")]
    return Pipeline(tiny.SPEC, *engines, omg)


def shifted(pipeline: Pipeline, *, objectness: float = 0, **shifts: float) -> Pipeline:
    return Pipeline(
        pipeline.spec, Shifted(pipeline.omg, objectness=objectness), Shifted(pipeline.detector, **shifts), omg
    )


def compare(pipeline: Pipeline, candidate: Pipeline, tiny: ModuleType, images: int = 2) -> Parity:
    return measure_parity(pipeline, candidate, [tiny.picture()] * images, box_px=0.5, score=0.01)


def test_a_pipeline_equals_itself(pipeline: Pipeline, tiny: ModuleType) -> None:
    parity = compare(pipeline, pipeline, tiny)
    assert (parity.images, parity.unpaired, parity.disagreeing) == (2, 0, 0)
    assert (parity.mask_cells, parity.mask_cells_differing) == (32, 0)
    assert parity.candidates >= parity.detections
    assert parity.detections == 2 * len(pipeline.process(tiny.picture()).detections) > 0
    assert parity.box_error_px == parity.score_error == parity.mask_share_differing == 0
    assert all(tensor.cosine == pytest.approx(1) and tensor.max_abs == 0 for tensor in parity.tensors.values())


class Pixels(Shifted):
    """An engine that normalises pixels itself, and takes nothing else."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.takes_pixels = True

    def run(self, inputs: Tensors) -> Tensors:
        assert inputs["image"].dtype == np.uint8
        return super().run({**inputs, "image": (inputs["image"].astype(np.float32) - 128) / 128})


def test_each_side_gets_the_picture_as_it_wants_it(pipeline: Pipeline, tiny: ModuleType) -> None:
    candidate = Pipeline(pipeline.spec, Pixels(pipeline.omg), Pixels(pipeline.detector), omg)
    for one, other in ((pipeline, candidate), (candidate, pipeline)):
        assert compare(one, other, tiny).tensors["class_logits"].max_abs == 0


def test_a_shift_of_boxes_shows_in_pixels(pipeline: Pipeline, tiny: ModuleType) -> None:
    parity = compare(pipeline, shifted(pipeline, box_offsets=0.5), tiny)
    # 0.5 x variance 0.1 x anchor 16 px = 0.8 px of the centre, and a size e^(0.5 x 0.2) times as large.
    assert 0.8 < parity.box_error_px < 4
    assert parity.tensors["box_offsets"].max_abs == pytest.approx(0.5)
    assert parity.disagreeing == parity.candidates > 0
    assert parity.score_error == 0


def test_a_shift_of_logits_shows_in_scores(pipeline: Pipeline, tiny: ModuleType) -> None:
    parity = compare(pipeline, shifted(pipeline, class_logits=-0.5), tiny)
    assert parity.score_error > 0.01
    assert parity.tensors["class_logits"].max_abs == pytest.approx(0.5)
    assert parity.tensors["class_logits"].cosine < 1
    assert parity.box_error_px == 0


def test_a_lost_mask_is_counted_and_does_not_hide_the_detector(pipeline: Pipeline, tiny: ModuleType) -> None:
    parity = compare(pipeline, shifted(pipeline, objectness=-100), tiny)
    active = int(pipeline.process(tiny.picture()).mask.sum())
    assert parity.mask_cells_differing == 2 * active > 0
    assert parity.unpaired == parity.detections > 0
    assert parity.disagreeing == 0  # compared under the reference's mask
    assert parity.tensors["class_logits"].max_abs == 0


def test_detections_from_nothing_disagree_too(pipeline: Pipeline, tiny: ModuleType) -> None:
    silent = shifted(pipeline, class_logits=-100)
    parity = compare(silent, pipeline, tiny)
    assert parity.detections == 0
    assert parity.unpaired > 0
    assert parity.disagreeing == parity.candidates > 0


def test_an_empty_mask_still_compares_the_tensors(pipeline: Pipeline, tiny: ModuleType) -> None:
    blind = shifted(pipeline, objectness=-100)
    parity = compare(blind, shifted(blind, class_logits=0.25), tiny)
    assert parity.tensors["class_logits"].max_abs == pytest.approx(0.25)


def test_a_detection_at_the_threshold_may_lose_its_partner(pipeline: Pipeline, tiny: ModuleType) -> None:
    score = float(pipeline.process(tiny.picture()).detections.scores.max())
    loose = measure_parity(pipeline, shifted(pipeline, class_logits=-100), [tiny.picture()], box_px=0.5, score=score)
    assert loose.unpaired == 0  # all are within `score` of the threshold


def test_no_picture_is_an_error(pipeline: Pipeline) -> None:
    with pytest.raises(ValueError, match="at least one picture"):
        measure_parity(pipeline, pipeline, [], box_px=1, score=1)


def test_partners_are_of_one_class_and_the_closest() -> None:
    def found(*boxes: tuple[float, float, int]) -> Detections:
        return Detections(
            boxes_xyxy=np.array([[left, 0, left + 10, top] for left, top, _ in boxes], np.float32),
            scores=np.linspace(0.9, 0.5, len(boxes)).astype(np.float32),
            class_ids=np.array([name for _, _, name in boxes], np.int64),
        )

    first = found((0, 10, 0), (2, 10, 0), (50, 10, 1))
    second = found((2, 10, 0), (0, 10, 0), (50, 10, 0))
    assert sorted(match_detections(first, second)) == [(0, 1), (1, 0)]
    assert match_detections(Detections.empty(), second) == []
    assert match_detections(first, Detections.empty()) == []
