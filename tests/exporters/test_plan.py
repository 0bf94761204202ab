"""A board's choices, and what the user insists on instead."""

from __future__ import annotations

import pytest

from edgekit.boards import list_boards, load_board
from edgekit.bundle.manifest import GRAPH_FORMATS
from edgekit.errors import UsageError
from edgekit.exporters.plan import ExportPlan, check_programs, plan_export
from edgekit.models.registry import MODELS


@pytest.mark.parametrize("board", [board.name for board in list_boards()])
@pytest.mark.parametrize("calibrated", [True, False])
def test_every_board_has_a_plan(board: str, calibrated: bool) -> None:
    defaults = load_board(board).export
    plan = plan_export(load_board(board), calibrated=calibrated)
    assert (plan.target, plan.graph_format, plan.threads) == (board, defaults.format, defaults.threads)
    assert plan.precision == (defaults.precision if calibrated else defaults.uncalibrated_precision)
    assert plan.uncalibrated == (not calibrated and defaults.precision == "int8")
    assert plan.engines[0] == defaults.engines[0]
    assert set(plan.engines) <= set(GRAPH_FORMATS[plan.graph_format][1])
    assert set(plan.engine_options) <= set(plan.engines)


def test_options_override_the_board() -> None:
    plan = plan_export(
        load_board("raspberry-pi-4"), graph_format="openvino", precision="fp32", threads=2, calibrated=False
    )
    assert (plan.graph_format, plan.precision, plan.threads, plan.suffix) == ("openvino", "fp32", 2, ".xml")
    assert plan.engines == ("openvino",)
    assert not plan.uncalibrated  # fp32 was asked for
    assert [part.what for part in plan.parts] == ["fp32 openvino model"]


def test_sparse_programs_beside_the_graphs() -> None:
    plan = plan_export(load_board("raspberry-pi-4"), sparse=True, calibrated=True)
    assert [(part.what, part.suffix, part.engines) for part in plan.parts] == [
        ("int8 tflite model", ".tflite", ("tflite",)),
        ("int8 sparse program", ".sparse", ("native",)),
    ]
    half = plan_export(None, precision="fp16", sparse=True, calibrated=False)
    assert [part.what for part in half.parts] == ["fp16 onnx model", "fp32 sparse program"]
    with pytest.raises(UsageError, match="of another format, and those of --format sparse are sparse programs"):
        plan_export(None, graph_format="sparse", sparse=True, calibrated=False)


def test_a_format_without_half_precision() -> None:
    with pytest.raises(UsageError, match="the format sparse has no half precision; expected fp32 or int8, got 'fp16'"):
        plan_export(None, graph_format="sparse", precision="fp16", calibrated=True)
    for board, calibrated, precision in (
        ("jetson", True, "fp32"),  # it would rather have fp16
        ("raspberry-pi-4", False, "fp32"),
        ("raspberry-pi-4", True, "int8"),
    ):
        plan = plan_export(load_board(board), graph_format="sparse", calibrated=calibrated)
        assert (plan.precision, plan.engines, plan.suffix) == (precision, ("native",), ".sparse")
        assert plan.float_precision == "fp32"
    assert plan_export(None, calibrated=False).float_precision == "fp16"


def test_jetson_keeps_its_providers() -> None:
    plan = plan_export(load_board("jetson"), calibrated=False)
    assert plan.engines[0] == "onnxruntime"
    names = [provider["name"] for provider in plan.engine_options["onnxruntime"]["providers"]]
    assert names == ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


def test_without_a_board_nothing_is_lost() -> None:
    plan = plan_export(None, calibrated=True)
    assert (plan.graph_format, plan.precision, plan.target) == ("onnx", "fp32", None)
    assert plan.engines == GRAPH_FORMATS["onnx"][1]


@pytest.mark.parametrize("board", [None, "raspberry-pi-4"])
def test_int8_by_name_needs_pictures(board: str | None) -> None:
    with pytest.raises(
        UsageError, match=r"int8 needs at least 100 pictures .*, got none\.\nName them with: --calib DIR"
    ):
        plan_export(load_board(board) if board else None, precision="int8", calibrated=False)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="--format: expected onnx, tflite, openvino, sparse, got 'ncnn'"):
        plan_export(None, graph_format="ncnn", calibrated=False)
    with pytest.raises(UsageError, match="--precision: expected fp32, fp16, int8, got 'int4'"):
        ExportPlan(graph_format="onnx", precision="int4", engines=("onnxruntime",))


def test_a_detr_has_sparse_programs_of_its_backbone_alone() -> None:
    spec = MODELS["sparse-detr-mobilenetv2-omg"].spec(("a",), 320, 320)
    with pytest.raises(UsageError, match=r"alone cannot hold sparse-detr-mobilenetv2-omg.*\n.*--format openvino"):
        check_programs(spec, plan_export(None, calibrated=False, graph_format="sparse"))
    check_programs(spec, plan_export(None, calibrated=False, graph_format="tflite"))
    check_programs(spec, plan_export(None, calibrated=False, graph_format="tflite", sparse=True))
