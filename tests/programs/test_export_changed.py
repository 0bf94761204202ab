"""``edgekit export`` of a checkpoint that it changes first: another input size, a compressed head, a Caffe file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from edgekit.bundle import open_bundle
from edgekit.bundle.golden import verify_bundle
from edgekit.cli import load_program
from edgekit.errors import UsageError
from edgekit.models.checkpoint import Checkpoint, save_checkpoint
from edgekit.models.registry import build


def export(*arguments: object) -> Result:
    result = CliRunner().invoke(load_program("export"), [str(value) for value in arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


def saved(path: Path, name: str, *, width: float = 1.0) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(name, ("red", "blue"), size=64, width_multiplier=width).eval()
        if name.startswith("pvanet"):  # RoIs that differ, and classes that are told apart
            for layer in (model.two_stage.rpn.rpn_cls_score, model.two_stage.head.cls_score):
                torch.nn.init.normal_(layer.weight, std=0.2)
    save_checkpoint(path, Checkpoint(model=model, provenance={"training_data": "none", "starting_weights": "none"}))
    return path


@pytest.mark.parametrize("graph_format", ["onnx", "tflite", "openvino", "sparse"])
def test_an_oblong_input(tmp_path: Path, graph_format: str) -> None:
    """Its coarsest maps are of one row before they are of one column."""
    checkpoint, out = saved(tmp_path / "ssd.pt", "mobilenetv2-ssdlite-omg"), tmp_path / "x.edgekit"
    export(checkpoint, "--imgsz", "128x320", "--format", graph_format, "-o", out)
    spec = open_bundle(out).manifest.spec
    assert (spec.height, spec.width, spec.mask_grid) == (128, 320, (8, 20))
    assert verify_bundle(out).passed


def test_a_compressed_head_passes_the_gate_and_costs_less(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "pvanet.pt", "pvanet-9.1-omg", width=0.125)
    macs = {}
    for name, options in (("whole", ()), ("halves", ("--compress-head",))):
        out = tmp_path / f"{name}.edgekit"
        document = json.loads(
            export(checkpoint, "--imgsz", 128, "--format", "sparse", "-o", out, "--json", *options).stdout
        )
        assert document["gate"]["passed"]
        assert document["gate"]["parity"]["tensors"].keys() == {"roi_logits", "roi_deltas", "rpn_logits", "rpn_deltas"}
        manifest = open_bundle(out).manifest
        assert manifest.graphs.keys() == {"omg", "shared", "head"}
        assert verify_bundle(out).passed
        layers = manifest.document["layers"]
        macs[name] = sum(layer["macs"] for layer in layers if layer["graph"] == "head")
        assert manifest.macs["dense"] == sum(layer["macs"] for layer in layers if layer["graph"] != "omg")
    assert open_bundle(tmp_path / "halves.edgekit").manifest.spec.model == "pvanet-9.1-compressed-omg"
    assert macs["halves"] < macs["whole"] / 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("x.pt", "--imgsz", "big"), "--imgsz expects one side, as in 512, or height and width, as in 640x1056, got"),
        (("x.pt", "--imgsz", "64x64x3"), "--imgsz expects one side"),
        (("x.pt", "--imgsz", "100"), "mobilenetv2-ssdlite-omg needs an input size that is a multiple of 64, got 100"),
        (("x.pt", "--compress-head"), "the head of mobilenetv2-ssdlite-omg cannot be compressed"),
        (("x.pt", "--network", "pvanet-9.1-omg"), "--network says what a .caffemodel holds"),
        (("x.caffemodel",), "does not say which network it holds. Name it with --network"),
    ],
)
def test_wrong_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "x.pt", "mobilenetv2-ssdlite-omg")
    with pytest.raises(UsageError, match=message):
        export(*arguments)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.pt"]
