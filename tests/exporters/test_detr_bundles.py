"""Bundles of a small Sparse DETR: they pass the gate and their own self-test, and every engine finds the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks are PyTorch modules")

from edgekit.backends import engine_problem  # noqa: E402
from edgekit.bundle.golden import verify_bundle  # noqa: E402
from edgekit.errors import UsageError  # noqa: E402
from edgekit.exporters.build import export_bundle  # noqa: E402
from edgekit.exporters.evidence import Evidence  # noqa: E402
from edgekit.exporters.plan import plan_export  # noqa: E402
from edgekit.models.checkpoint import Checkpoint  # noqa: E402
from edgekit.models.registry import build  # noqa: E402

SIDE = 64


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    model = build("sparse-detr-mobilenetv2-omg", tuple("abc"), size=SIDE).eval()
    with torch.no_grad():
        for name, item in model.detector.named_parameters():
            if not name.startswith("backbone."):
                item += 0.05 * torch.randn_like(item)
        for head in model.detr.class_embed:
            head.bias.fill_(-0.5)  # so that something is found
    return Checkpoint(model=model, provenance={})


@pytest.mark.parametrize(
    "graph_format",
    ["tflite", pytest.param("onnx", marks=pytest.mark.slow), pytest.param("openvino", marks=pytest.mark.slow)],
)
def test_a_bundle_passes_where_it_was_made(checkpoint: Checkpoint, tmp_path: Path, graph_format: str) -> None:
    """With programs of its backbone beside its graphs."""
    # Random weights score hundreds of tokens alike, so that half precision chooses others.
    plan = plan_export(None, graph_format=graph_format, precision="fp32", sparse=True, calibrated=False)
    if all(engine_problem(name) is not None for name in plan.engines):
        pytest.skip(f"no engine for {graph_format} is installed")
    blocks = np.random.default_rng(0).integers(0, 256, (2, SIDE // 16, SIDE // 16, 3)).repeat(16, 1).repeat(16, 2)
    evidence = Evidence(pictures=tuple(blocks.astype(np.uint8)))
    result = export_bundle(checkpoint, plan, tmp_path / "a.edgekit", evidence=evidence, threads=1)
    assert result.report.parity.candidates > 10
    assert set(result.report.parity.tensors) == {"class_logits", "boxes"}
    assert result.sparse_report is not None
    assert result.sparse_report.passed
    report = verify_bundle(result.path)
    assert report.passed, report
    assert report.detections > 3
    native = report.checks[0]
    assert native.engine == "native"
    assert native.detail.startswith("native ")
    assert " and " in native.detail, "its tokens are the dense engine's"


def test_programs_alone_are_refused_before_anything_is_converted(checkpoint: Checkpoint, tmp_path: Path) -> None:
    plan = plan_export(None, graph_format="sparse", calibrated=False)
    with pytest.raises(UsageError, match=r"sparse programs alone cannot hold sparse-detr-mobilenetv2-omg"):
        export_bundle(checkpoint, plan, tmp_path / "a.edgekit", evidence=Evidence())
    assert not (tmp_path / "a.edgekit").exists()
