"""What passes the gate, what does not, and what the refusal says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from edgekit.backends import load_engine
from edgekit.data.datasets import DetectionDataset, Sample
from edgekit.errors import GateError
from edgekit.exporters.gate import (
    Accuracy,
    GateReport,
    gate_error,
    measure_ap50,
    run_gate,
    suggest_count,
)
from edgekit.exporters.parity import Parity, TensorParity
from edgekit.exporters.parity_limits import PARITY_LIMITS
from edgekit.exporters.sensitivity import LayerError
from edgekit.masks.sources import off, omg
from edgekit.pipeline import Pipeline


@pytest.fixture
def pipeline(tmp_path: Path, tiny: ModuleType) -> Pipeline:
    files = tiny.graphs(tmp_path, "onnx")
    engines = [load_engine("onnxruntime", tmp_path / files[name], threads=1) for name in ("omg", "detector")]
    return Pipeline(tiny.SPEC, *engines, omg)


@pytest.fixture
def dataset(tmp_path: Path, tiny: ModuleType, pipeline: Pipeline) -> DetectionDataset:
    """Three pictures whose truth is what the tiny detector finds."""
    assert cv2.imwrite(str(tmp_path / "blocks.png"), tiny.picture()[..., ::-1])
    found = pipeline.process(tiny.picture()).detections
    samples = tuple(
        Sample(
            image_id=index,
            path=tmp_path / "blocks.png",
            boxes_xyxy=found.boxes_xyxy,
            class_ids=found.class_ids,
            ignore=np.zeros(len(found), np.bool_),
        )
        for index in range(3)
    )
    return DetectionDataset(name="blocks val", classes=tiny.SPEC.classes, samples=samples)


def parity(**changes: object) -> Parity:
    perfect = Parity(
        images=16,
        detections=100,
        unpaired=0,
        candidates=400,
        disagreeing=0,
        box_error_px=0.0,
        score_error=0.0,
        mask_cells=6400,
        mask_cells_differing=0,
        tensors=cosines(1, 1),
    )
    return replace(perfect, **changes)  # type: ignore[arg-type]


def cosines(logits: float, offsets: float, max_abs: float = 1.0) -> dict[str, TensorParity]:
    return {
        "class_logits": TensorParity(cosine=logits, max_abs=max_abs),
        "box_offsets": TensorParity(cosine=offsets, max_abs=max_abs),
    }


def report(precision: str = "int8", accuracy: Accuracy | None = None, **changes: object) -> GateReport:
    return GateReport(
        precision=precision,
        engine="tflite 1",
        parity=parity(**changes),
        limits=PARITY_LIMITS[precision],
        accuracy=accuracy,
    )


def accuracy(before: float, after: float) -> Accuracy:
    return Accuracy(data="voc07 val", images=500, ap50_before=before, ap50_after=after, max_drop=1.0)


RANKING = [
    LayerError(layer="detector.b", noise=0.2),
    LayerError(layer="detector.a", noise=0.19),
    *(LayerError(layer=f"omg.{index}", noise=1e-5) for index in range(38)),
]


def refusal(
    refused: GateReport, ranking: Sequence[LayerError], kept: tuple[str, ...] = (), **changes: str
) -> GateError:
    what = f"{refused.precision} tflite model"
    return gate_error(refused.failures, what=what, precision=refused.precision, ranking=ranking, kept=kept, **changes)


def test_an_equal_pipeline_passes_both_halves(pipeline: Pipeline, dataset: DetectionDataset, tiny: ModuleType) -> None:
    told: list[tuple[str, int, int]] = []
    result = run_gate(
        pipeline,
        pipeline,
        precision="fp32",
        pictures=[tiny.picture()] * 2,
        dataset=dataset,
        max_drop=0.0,
        progress=lambda *step: told.append(step),
    )
    assert result.passed
    assert result.failures == ()
    assert result.accuracy is not None
    assert result.accuracy.ap50_before == result.accuracy.ap50_after == pytest.approx(1)
    assert (result.accuracy.data, result.accuracy.images, result.accuracy.drop) == ("blocks val", 3, 0)
    assert told == [(what, done, 3) for what in ("AP50 before", "AP50 after") for done in (1, 2, 3)]
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert document["passed"] is True
    assert document["accuracy"]["ap50_after"] == pytest.approx(1)
    assert document["parity"]["limits"]["box_px"] == 0.5


def test_without_data_accuracy_is_unknown(pipeline: Pipeline, tiny: ModuleType) -> None:
    result = run_gate(pipeline, pipeline, precision="fp32", pictures=[tiny.picture()], dataset=None, max_drop=1.0)
    assert result.passed
    assert result.accuracy is None
    assert result.to_json()["accuracy"] is None


def test_a_known_accuracy_is_not_measured_again(
    pipeline: Pipeline, dataset: DetectionDataset, tiny: ModuleType
) -> None:
    told: list[str] = []
    result = run_gate(
        pipeline,
        pipeline,
        precision="fp32",
        pictures=[tiny.picture()],
        dataset=dataset,
        max_drop=1.0,
        ap50_before=0.5,
        progress=lambda what, _done, _total: told.append(what),
    )
    assert result.accuracy is not None
    assert result.accuracy.ap50_before == 0.5
    assert set(told) == {"AP50 after"}


def test_a_pipeline_that_finds_nothing_fails_by_accuracy(
    pipeline: Pipeline, dataset: DetectionDataset, tiny: ModuleType
) -> None:
    strict = Pipeline(pipeline.spec, pipeline.omg, pipeline.detector, off)
    assert measure_ap50(pipeline, dataset) == pytest.approx(1)
    blind = Pipeline(pipeline.spec, pipeline.omg, pipeline.detector, lambda frame: np.zeros_like(off(frame)))
    assert measure_ap50(blind, dataset) == 0
    result = run_gate(strict, blind, precision="int8", pictures=[tiny.picture()], dataset=dataset, max_drop=1.0)
    assert not result.passed
    assert any("AP50 on blocks val (3 pictures)" in failure for failure in result.failures)


@pytest.mark.parametrize(
    ("precision", "changes"),
    [
        ("int8", {"disagreeing": 100, "unpaired": 25, "mask_cells_differing": 320}),
        ("fp16", {"disagreeing": 8, "unpaired": 2}),
        ("fp32", {"disagreeing": 4, "unpaired": 1, "mask_cells_differing": 6}),
        ("fp32", {"tensors": cosines(0.1, 0.1, 1e-6)}),  # next to nothing has no direction
        ("fp32", {"detections": 0, "unpaired": 1}),  # suppression may turn one choice over
        ("fp32", {"candidates": 0, "disagreeing": 1}),
    ],
)
def test_within_the_limits(precision: str, changes: dict[str, object]) -> None:
    assert report(precision, **changes).passed


@pytest.mark.parametrize(
    ("precision", "changes", "message"),
    [
        ("int8", {"disagreeing": 101}, r"candidates: expected at most 100 of 400 .* got 101 over 16 pictures"),
        ("fp32", {"disagreeing": 5}, r"expected at most 4 of 400 to be more than 0\.5 px or 0\.01 in score"),
        ("fp16", {"unpaired": 3}, r"detections: expected at most 2 of PyTorch's 100 .* a partner .* got 3 over 16"),
        ("int8", {"mask_cells_differing": 321}, r"mask: expected at most 5 % of the cells to differ, got 5\.02 %"),
        (
            "fp16",
            {"tensors": cosines(0.9, 1)},
            r"class_logits .* expected at least 0\.9999, got 0\.90000 over 16 pictures \(largest difference 1\)",
        ),
        (
            "int8",
            {"tensors": cosines(1, 0.5)},
            r"box_offsets of what is active: cosine with PyTorch expected at least 0\.95, got 0\.50000",
        ),
    ],
)
def test_over_the_limits(precision: str, changes: dict[str, object], message: str) -> None:
    failures = report(precision, **changes).failures
    assert len(failures) == 1
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(failures[0])


@pytest.mark.parametrize(("after", "passed"), [(0.60, True), (0.591, True), (0.589, False), (0.7, True)])
def test_the_drop_is_in_points(after: float, passed: bool) -> None:
    assert report(accuracy=accuracy(0.60, after)).passed is passed


def test_the_refusal_says_what_where_and_what_next() -> None:
    refused = report(accuracy=accuracy(0.61, 0.43), disagreeing=160)
    message = str(refusal(refused, RANKING))
    assert message.startswith("the int8 tflite model is too far from its checkpoint")
    assert "no bundle was written" in message
    assert "expected at least 0.6000 (0.6100 before, at most 1 points less), got 0.4300, 18.0 points less" in message
    assert "expected at most 100 of 400" in message
    assert message.index("detector.b  7.0 dB") < message.index("detector.a  7.2 dB") < message.index("omg.0  50.0 dB")
    assert "omg.10" not in message
    assert "--keep-float worst:2 " in message
    assert refusal(refused, RANKING).exit_code == 5


def test_a_second_refusal_asks_for_more_layers() -> None:
    refused = report(accuracy=accuracy(0.61, 0.43))
    message = str(refusal(refused, RANKING, kept=("detector.b",)))
    assert "detector.b  7.0 dB  (already kept in float)" in message
    assert "--keep-float worst:2 " in message


def test_a_format_without_half_precision_is_not_told_to_use_it() -> None:
    refused = report(accuracy=accuracy(0.61, 0.43))
    for ranking in (RANKING, RANKING[2:]):
        assert "give up int8" in str(refusal(refused, ranking))
        assert "--precision fp16" in str(refusal(refused, ranking))
        message = str(refusal(refused, ranking, float_precision="fp32"))
        assert "--precision fp32" in message
        assert "fp16" not in message


def test_diffuse_noise_is_told_from_a_bad_layer() -> None:
    message = str(refusal(report(accuracy=accuracy(0.61, 0.59)), RANKING[2:]))
    assert "No layer stands out" in message
    assert "--keep-float worst:4)" in message


@pytest.mark.parametrize(
    ("precision", "advice"), [("fp16", "--precision fp32"), ("fp32", "the converter or the engine is at fault")]
)
def test_other_precisions_have_no_layers_to_blame(precision: str, advice: str) -> None:
    message = str(refusal(report(precision, disagreeing=200), ()))
    assert advice in message
    assert "--keep-float" not in message


def test_what_the_bundle_can_do_without_is_said() -> None:
    refused = report(accuracy=accuracy(0.61, 0.43))
    message = str(gate_error(refused.failures, what="int8 sparse program", precision="int8", ranking=RANKING, kept=(),
                             optional="--sparse"))  # fmt: skip
    assert message.startswith("the int8 sparse program is too far from its checkpoint")
    assert "--keep-float worst:2" in message
    assert message.endswith("without --sparse they make a bundle")


def test_the_suggested_number_of_layers() -> None:
    assert suggest_count(RANKING) == 2
    assert suggest_count(RANKING[2:]) == 4  # all alike: no more than a tenth
    assert suggest_count(RANKING[:1]) == 1
    assert suggest_count([]) == 1


def test_every_precision_has_limits_and_they_loosen() -> None:
    from edgekit.bundle.manifest import PRECISIONS

    assert set(PARITY_LIMITS) == set(PRECISIONS)
    strict, loose = PARITY_LIMITS["fp32"], PARITY_LIMITS["int8"]
    assert strict.logit_cosine > PARITY_LIMITS["fp16"].logit_cosine > loose.logit_cosine
    assert strict.box_px < PARITY_LIMITS["fp16"].box_px < loose.box_px
