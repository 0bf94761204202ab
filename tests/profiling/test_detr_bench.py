"""The benchmark of Sparse DETR: its rows, its table, and what it refuses."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="networks are PyTorch modules")

from edgekit.errors import EngineError, UsageError
from edgekit.models import detr_variants
from edgekit.models.resnet import ResNet
from edgekit.profiling.detr_bench import detr_lines, measure_detr, sides_of

SETTINGS = {"height": 96, "width": 128, "shares": (0.2,), "threads": 1, "iterations": 1, "classes": 5}


@pytest.fixture(autouse=True)
def tiny_variant(monkeypatch: pytest.MonkeyPatch, tiny_detr) -> None:
    variant = detr_variants.DetrVariant(backbone=lambda: ResNet(layers=(1, 1, 1, 1), width=8), size=tiny_detr.SIZE)
    monkeypatch.setitem(detr_variants.VARIANTS, "tiny", variant)


def test_rows_compare_shares_with_a_dense_encoder() -> None:
    document = measure_detr("tiny", engines=("torch", "onnxruntime"), **SETTINGS)
    tokens = 12 * 16 + 6 * 8 + 3 * 4 + 2 * 2
    assert document["input"] == {"height": 96, "width": 128, "tokens": tokens}
    found = [(row["engine"], row["share"], row["tokens"]) for row in document["rows"]]
    assert found == [
        (engine, share, count)
        for engine in ("torch", "onnxruntime")
        for share, count in ((None, tokens), (0.2, int(tokens * 0.2) + 1))
    ]
    for dense, sparse in (document["rows"][:2], document["rows"][2:]):
        for part in ("whole", "encoder"):
            assert dense[part]["to_dense"] == 1
            assert sparse[part]["gmacs"] < dense[part]["gmacs"]
            assert 0 < sparse[part]["ms_min"] <= sparse[part]["ms_median"]
        assert sparse["encoder"]["gmacs"] < sparse["whole"]["gmacs"]
    lines = detr_lines(document)
    assert lines[1] == f"tiny, fp32, 96x128: {tokens} tokens"
    assert len(lines) == 4 + len(document["rows"])


def test_an_engine_that_fails_is_left_out(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    from edgekit.profiling import detr_bench

    def fails(*_: object, **__: object) -> None:
        raise EngineError("it is broken")

    monkeypatch.setattr(detr_bench, "load_engine", fails)
    document = measure_detr("tiny", engines=("torch", "tflite"), **SETTINGS)
    assert {row["engine"] for row in document["rows"]} == {"torch"}
    assert "tflite is left out: it is broken" in caplog.text
    with pytest.raises(EngineError, match=r"a DETR could be run by none of tflite"):
        measure_detr("tiny", engines=("tflite",), **SETTINGS)


def test_refusals() -> None:
    with pytest.raises(UsageError, match=r"no DETR is called 'huge'; there are: mobilenetv2, r50"):
        measure_detr("huge", engines=("torch",), **SETTINGS)
    assert sides_of("800x1066") == (800, 1066)
    with pytest.raises(UsageError, match=r"--imgsz: expected rows and columns from 64 up, as in 800x1066, got '32x96'"):
        sides_of("32x96")
