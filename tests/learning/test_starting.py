"""What of a PVANet starts from which file."""

from __future__ import annotations

import argparse
import copy
import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from edgekit.errors import CheckpointError, UsageError
from edgekit.learning.starting import fill, starting_weights
from edgekit.models.checkpoint import Checkpoint, save_checkpoint
from edgekit.models.masked_detector import MaskedDetector
from edgekit.models.pvanet import PVANet, PVANetClassifier
from edgekit.models.pvanet_input import read_normalised
from edgekit.models.pvanet_layers import Scale
from edgekit.models.registry import build

EVERYTHING = frozenset({"omg", "trunk", "head"})


def model(name: str, *, classes: int = 2, width: float = 0.125) -> MaskedDetector:
    """Untrained, for letters as classes."""
    return build(name, tuple("abcdef"[:classes]), size=64, width_multiplier=width).eval()


def saved(path: Path, source: MaskedDetector) -> Path:
    save_checkpoint(path, Checkpoint(model=source.eval()))
    return path


def no_pictures() -> list[torch.Tensor]:
    raise AssertionError("only a .tflite needs pictures")


def caffemodel(path: Path, net: PVANet | PVANetClassifier) -> Path:
    """What Caffe would have saved: names, and blobs with their shape."""

    def varint(value: int) -> bytes:
        return varint_of(value & 0x7F | 0x80) + varint(value >> 7) if value >= 0x80 else varint_of(value)

    def varint_of(value: int) -> bytes:
        return bytes([value])

    def field(number: int, content: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(content)) + content

    text = b""
    kinds = {nn.ConvTranspose2d: "Deconvolution", nn.Conv2d: "Convolution", nn.Linear: "InnerProduct", Scale: "Scale"}
    for name, module in net.named_modules():
        first, _, rest = name.partition(".")
        kind = next((kind for known, kind in kinds.items() if isinstance(module, known)), "")
        blobs = [parameter.detach().numpy() for parameter in module.parameters(recurse=False)]
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            statistics = (module.get_buffer("running_mean"), module.get_buffer("running_var"), torch.ones(1))
            kind, blobs = "BatchNorm", [tensor.numpy() for tensor in statistics]
        if kind:
            layer = field(1, (rest if first in net.CAFFE_PARTS else name).replace(".", "/").encode())
            layer += field(2, kind.encode())
            for blob in blobs:
                sides = field(1, b"".join(map(varint, blob.shape)))
                layer += field(7, field(7, sides) + field(5, blob.astype("<f4").tobytes()))
            text += field(100, layer)
    path.write_bytes(text)
    return path


def test_all_of_an_own_checkpoint_is_taken(tmp_path: Path) -> None:
    source, target = model("pvanet-9.1-omg"), model("pvanet-9.1-omg")
    started, checkpoint = fill(target, saved(tmp_path / "own.pt", source), pictures=no_pictures)
    assert started == EVERYTHING
    assert checkpoint is not None
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value), name


def test_other_classes_leave_the_last_layers_afresh(tmp_path: Path) -> None:
    source, target = model("pvanet-9.1-omg", classes=4), model("pvanet-9.1-omg")
    last = target.two_stage.head.cls_score.weight.clone()
    started, _ = fill(target, saved(tmp_path / "own.pt", source), pictures=no_pictures)
    assert started == EVERYTHING
    assert torch.equal(target.two_stage.head.cls_score.weight, last)
    ours, theirs = (net.two_stage.head.state_dict()["fc6.weight"] for net in (target, source))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("variant", ["9.0", "9.1"])
def test_a_whole_head_is_compressed_on_its_way(tmp_path: Path, variant: str) -> None:
    source, target = model(f"pvanet-{variant}-omg"), model(f"pvanet-{variant}-compressed-omg")
    started, _ = fill(target, saved(tmp_path / "full.pt", source), pictures=no_pictures)
    assert started == EVERYTHING
    expected = copy.deepcopy(source.two_stage)
    expected.compress()
    for name, value in expected.state_dict().items():
        assert torch.equal(target.two_stage.state_dict()[name], value), name


def test_the_shipped_detector_gives_other_models_its_mask_network(caplog: pytest.LogCaptureFixture) -> None:
    target = model("pvanet-lite-omg")
    with caplog.at_level(logging.WARNING, "edgekit"):
        started, checkpoint = fill(target, starting_weights("default"), pictures=no_pictures)
    assert started == {"omg"}
    assert checkpoint is not None
    assert torch.equal(target.omg.predict.weight, checkpoint.model.omg.predict.weight)
    assert "the detector starts from random weights" in caplog.text


def test_none_fills_nothing() -> None:
    target = model("pvanet-lite-omg")
    before = copy.deepcopy(target.state_dict())
    assert fill(target, starting_weights("none"), pictures=no_pictures) == (frozenset(), None)
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


@pytest.mark.slow
def test_a_published_detector_is_taken_and_reads_our_pictures(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source, target = PVANet("9.1", classes=3, compressed=True), model("pvanet-9.1-compressed-omg", width=1.0)
    started, masks = fill(target, caffemodel(tmp_path / "net.caffemodel", source), pictures=no_pictures)
    assert started == EVERYTHING
    assert masks is not None
    assert torch.equal(target.omg.predict.weight, masks.model.omg.predict.weight)
    read_normalised(source)
    other_classes = ("head.cls_score.", "head.bbox_pred.")
    for name, value in source.state_dict().items():
        if not name.startswith(other_classes):
            assert torch.equal(target.two_stage.state_dict()[name], value), name


@pytest.mark.slow
def test_a_published_classifier_gives_its_trunk(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = PVANetClassifier("9.0", side=64, classes=3).eval()
    target = model("pvanet-9.0-omg", width=1.0)
    started, _ = fill(target, caffemodel(tmp_path / "net.caffemodel", source), pictures=no_pictures)
    assert started == {"omg", "trunk"}
    ours, theirs = target.two_stage.trunk.state_dict(), source.trunk.state_dict()
    assert torch.equal(ours["conv5_4.out.conv.weight"], theirs["conv5_4.out.conv.weight"])
    assert torch.equal(ours["conv1_1.conv.weight"], theirs["conv1_1.conv.weight"].flip(1) * 128)


def test_published_weights_are_of_full_width_and_for_pvanets(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(b"")
    with pytest.raises(UsageError, match="of full width; leave out --width-multiplier"):
        fill(model("pvanet-9.0-omg"), path, pictures=no_pictures)
    with pytest.raises(UsageError, match="weights of a PVANet, and mobilenetv2-ssdlite-omg is none"):
        fill(build("mobilenetv2-ssdlite-omg", ("a",), size=64), path, pictures=no_pictures)
    with pytest.raises(CheckpointError, match="is not a readable"):
        fill(model("pvanet-lite-omg", width=1.0), path, pictures=no_pictures)


def test_a_mobilenet_starts_no_pvanet(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="starts from a published"):
        fill(model("pvanet-lite-omg"), tmp_path / "mobilenet.tflite", pictures=no_pictures)


def test_a_small_detr_takes_the_trunk_and_the_masks_of_a_mobilenetv2_ssdlite(tmp_path: Path) -> None:
    source = build("mobilenetv2-ssdlite-omg", ("a", "b"), size=64).eval()
    target = build("sparse-detr-mobilenetv2-omg", ("x",), size=64)
    started, checkpoint = fill(target, saved(tmp_path / "x.pt", source), pictures=no_pictures)
    assert started == {"omg", "trunk"}
    assert checkpoint is not None
    assert torch.equal(target.omg.predict.weight, source.omg.predict.weight)
    theirs = source.one_stage.backbone.state_dict()
    for name, value in target.trunk.state_dict().items():
        assert torch.equal(value, theirs[name]), name


def test_published_files_of_a_detr_fill_what_they_have(tmp_path: Path) -> None:
    """Whole, with its program's options beside it; and backbones by torchvision and SCRL."""
    target = build("sparse-detr-r50-omg", ("a",), size=64)
    own = {name: torch.rand_like(value) for name, value in target.detr.state_dict().items()}
    for name in [name for name in own if name.startswith("class_embed") or ".class_embed" in name]:
        own[name] = torch.zeros(91, *own[name].shape[1:])
    torch.save({"model": own, "args": argparse.Namespace(lr=1e-4), "epoch": 49}, tmp_path / "sparse.pth")
    started, source = fill(target, tmp_path / "sparse.pth", pictures=no_pictures)
    assert started == {"omg", "trunk"}
    assert source is not None
    for name in ("backbone.0.body.layer4.2.conv3.weight", "transformer.level_embed", "bbox_embed.6.layers.2.bias"):
        assert torch.equal(target.detr.state_dict()[name], own[name]), name
    assert not torch.equal(target.detr.class_embed[0].weight, own["class_embed.0.weight"][:1])  # type: ignore[union-attr,arg-type]

    body = {name: torch.rand_like(value) for name, value in target.trunk.state_dict().items()}
    torch.save({**body, "fc.weight": torch.zeros(1, 2048)}, tmp_path / "resnet50.pth")
    encoder = {"conv1": "0", "bn1": "1", **{f"layer{index}": str(index + 3) for index in range(1, 5)}}
    names = {name: f"encoder.{encoder[name.partition('.')[0]]}.{name.partition('.')[2]}" for name in body}
    scrl = {names[name]: value + 1 for name, value in body.items()}
    torch.save({"online_network_state_dict": scrl}, tmp_path / "scrl.pth")
    for file, added in (("resnet50.pth", 0), ("scrl.pth", 1)):
        started, _ = fill(target, tmp_path / file, pictures=no_pictures)
        assert started == {"omg", "trunk"}
        for name, value in target.trunk.state_dict().items():
            assert torch.equal(value, body[name] + added), name


def test_files_for_another_detector_are_refused_to_a_detr(tmp_path: Path) -> None:
    target = build("sparse-detr-mobilenetv2-omg", ("a",), size=64)
    with pytest.raises(UsageError, match=r"is for sparse-detr-r50-omg; sparse-detr-mobilenetv2-omg starts from others"):
        fill(target, tmp_path / "x.pth", pictures=no_pictures)
    with pytest.raises(UsageError, match=r"starts from a published \.pth or a checkpoint \.pt"):
        fill(target, tmp_path / "x.tflite", pictures=no_pictures)
    with pytest.raises(UsageError, match="has weights of a PVANet"):
        fill(target, tmp_path / "x.caffemodel", pictures=no_pictures)
