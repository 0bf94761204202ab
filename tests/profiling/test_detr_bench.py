"""The benchmark of Sparse DETR: its rows, its table, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

pytest.importorskip("torch", reason="networks are PyTorch modules")

from edgekit.cli import load_program
from edgekit.errors import EngineError, UsageError
from edgekit.models import detr_variants
from edgekit.models.checkpoint import Checkpoint, save_checkpoint
from edgekit.models.registry import build
from edgekit.models.resnet import ResNet
from edgekit.profiling.detr_bench import detr_lines, measure_detr, sides_of
from edgekit.profiling.detr_subjects import random_subject, trained_subject

SETTINGS = {"shares": (0.2,), "threads": 1, "iterations": 1}


@pytest.fixture(autouse=True)
def tiny_variant(monkeypatch: pytest.MonkeyPatch, tiny_detr) -> None:
    variant = detr_variants.DetrVariant(backbone=lambda: ResNet(layers=(1, 1, 1, 1), width=8), size=tiny_detr.SIZE)
    monkeypatch.setitem(detr_variants.VARIANTS, "tiny", variant)


def test_rows_compare_shares_with_a_dense_encoder() -> None:
    document = measure_detr(
        random_subject("tiny", height=96, width=128, classes=5), engines=("torch", "onnxruntime"), **SETTINGS
    )
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
    document = measure_detr(
        random_subject("tiny", height=96, width=128, classes=5), engines=("torch", "tflite"), **SETTINGS
    )
    assert {row["engine"] for row in document["rows"]} == {"torch"}
    assert "tflite is left out: it is broken" in caplog.text
    with pytest.raises(EngineError, match=r"a DETR could be run by none of tflite"):
        measure_detr(random_subject("tiny", height=96, width=128, classes=5), engines=("tflite",), **SETTINGS)


def test_refusals() -> None:
    with pytest.raises(UsageError, match=r"no DETR is called 'huge'; there are: mobilenetv2, r50"):
        random_subject("huge", height=96, width=128)
    assert sides_of("800x1066") == (800, 1066)
    with pytest.raises(UsageError, match=r"--imgsz: expected rows and columns from 64 up, as in 800x1066, got '32x96'"):
        sides_of("32x96")


def trained(folder: Path, share: float) -> Path:
    model = build("sparse-detr-mobilenetv2-omg", ("box", "disc"), size=64, token_share=share).eval()
    save_checkpoint(folder / "a.pt", Checkpoint(model=model))
    return folder / "a.pt"


def test_a_trained_network_at_any_share_of_its_tokens(tmp_path: Path) -> None:
    path = trained(tmp_path, 0.3)
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    (data / "annotations").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(data / "images" / "1.png")
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [8, 8, 40, 40], "area": 1600, "iscrowd": 0}
    document = {
        "images": [{"id": 1, "file_name": "1.png", "width": 64, "height": 64}],
        "annotations": [box],
        "categories": [{"id": 1, "name": "box"}, {"id": 2, "name": "disc"}],
    }
    (data / "annotations" / "instances_val.json").write_text(json.dumps(document))
    subject = trained_subject(path, data, limit=5, threads=1)
    assert (subject.height, subject.classes) == (64, 2)
    assert subject.remarks == {"token_share": 0.3, "data": "data val", "images": 1}
    networks = {share: subject.network(share) for share in (None, 0.1, 1.0)}
    assert [network.share for network in networks.values()] == [None, 0.1, 1.0]
    assert subject.network(0.3).share == 0.3, "it is left as it was"
    first = networks[0.1].state_dict()
    assert all((value == first[name]).all() for name, value in networks[None].state_dict().items())
    found = measure_detr(subject, engines=("torch",), **SETTINGS)
    assert [(row["share"], row["tokens"]) for row in found["rows"]] == [(None, 85), (0.2, 18)]
    assert all(0 <= row["ap50"] <= 1 for row in found["rows"])
    assert detr_lines(found)[2] == "AP50 on 1 pictures of data val, without a mask"


def test_what_has_no_shares_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.pt has no network that scores tokens"):
        trained_subject(trained(tmp_path, 1.0), None, limit=None, threads=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.pt", "--variant", "r50"], "leave out --variant and --imgsz"),
        (["--data", "x"], "name its CHECKPOINT"),
    ],
)
def test_options_that_contradict_each_other(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(load_program("bench_detr", folder="runtime"), arguments)
    assert done.exit_code == 2
    assert message in done.output
