"""Checkpoints in the published layout: what goes in comes out, published files are taken, others are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from edgekit.errors import CheckpointError
from edgekit.models.backbone_weights import load_scrl_resnet
from edgekit.models.checkpoint import load_checkpoint
from edgekit.models.resnet import ResNet
from edgekit.models.torch_file import write_torch_file
from edgekit.pretraining.checkpoint import FORMAT, VERSION, load_networks, read_run, weights_of
from edgekit.pretraining.networks import Learner

PATH = Path("a.pth")


def small(backbone: str = "pvanet-lite", *, seed: int = 0, classes: int = 3, width: float = 0.25) -> Learner:
    torch.manual_seed(seed)
    return Learner(backbone, width=width, hidden=8, outputs=4, classes=classes)


@pytest.fixture(scope="module")
def resnet() -> Learner:
    return small("resnet50", width=1.0)


def equal(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    theirs = two.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


def test_round_trip_of_every_network() -> None:
    source, target = small(), small(seed=1)
    load_networks(target, weights_of(source), PATH)
    assert equal(source, target)


def test_a_resnet_is_written_as_published(resnet: Learner, tmp_path: Path) -> None:
    weights = weights_of(resnet)
    assert set(weights) == {
        f"{part}_state_dict" for part in ("online_network", "target_network", "predictor", "evaluator")
    }
    online = weights["online_network_state_dict"]
    assert {"encoder.0.weight", "encoder.4.0.downsample.1.bias", "projector.net.3.weight"} <= online.keys()
    assert not any(name.startswith(("encoder.2", "encoder.3", "encoder.8")) for name in online)
    # What reads the published files for a Sparse DETR reads this one.
    write_torch_file(tmp_path / "a.pth", {"format": FORMAT, "epoch": 1, **weights})
    frozen = ResNet()
    load_scrl_resnet(frozen, tmp_path / "a.pth")
    trained = resnet.online.encoder.state_dict()
    for name, value in frozen.state_dict().items():
        assert torch.equal(value, trained[name]), name


def test_a_published_file_is_taken(resnet: Learner) -> None:
    """Only the online network, without counts of batches and without edgekit's own entries."""
    online = {
        name: value for name, value in weights_of(resnet)["online_network_state_dict"].items()
        if not name.endswith("num_batches_tracked")
    }  # fmt: skip
    target = small("resnet50", seed=1, width=1.0)
    load_networks(target, {"online_network_state_dict": online, "epoch": 200, "max_eval_score": 68.0}, PATH)
    assert equal(resnet.online.projector, target.online.projector)
    for branch in (target.online, target.target):
        assert torch.equal(branch.encoder.conv1.weight, resnet.online.encoder.conv1.weight)  # type: ignore[union-attr]


def document(**changes: Any) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "config": {"backbone": "pvanet-lite"},
        **weights_of(small()),
        **changes,
    }


def without_a_layer() -> dict[str, torch.Tensor]:
    online = weights_of(small())["online_network_state_dict"]
    return {name: value for name, value in online.items() if name != "encoder.conv1.weight"}


def with_nan() -> dict[str, torch.Tensor]:
    online = weights_of(small())["online_network_state_dict"]
    return {**online, "encoder.conv1.weight": torch.full_like(online["encoder.conv1.weight"], torch.nan)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": {"backbone": "mobilenetv2"}}, "is a pretraining of mobilenetv2, not of pvanet-lite"),
        (
            {"online_network_state_dict": {}},
            r"the encoder in a\.pth is of another shape: \d+ of \d+ weights do not fit",
        ),
        ({"online_network_state_dict": None}, "has no 'online_network_state_dict'"),
        ({"online_network_state_dict": without_a_layer()}, "1 of .* weights do not fit, e.g. conv1.weight"),
        (
            {"online_network_state_dict": with_nan()},
            "the encoder in a.pth holds NaN or infinite values in conv1.weight",
        ),
        ({"predictor_state_dict": {"net.0.weight": torch.zeros(3, 3)}}, "the predictor in a.pth is of another shape"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_networks(small(seed=1), document(**changes), PATH)


def test_no_dictionary_is_refused() -> None:
    with pytest.raises(CheckpointError, match="but no pretraining: it holds a list"):
        load_networks(small(), [1], PATH)


def test_a_probe_of_other_classes_stays() -> None:
    target = small(seed=1, classes=5)
    before = target.probe.weight.clone()  # type: ignore[union-attr]
    load_networks(target, document(), PATH)
    assert torch.equal(target.probe.weight, before)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "holds no training state; start a new run from it with --weights"),
        ({"version": 99}, "is a pretraining of version 99; this edgekit reads version 1"),
        ({"format": "x"}, "but not a pretraining of edgekit"),
    ],
)
def test_only_a_run_of_ones_own_is_resumed(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_torch_file(tmp_path / "last.pt", document(**changes))
    with pytest.raises(CheckpointError, match=message):
        read_run(tmp_path / "last.pt")


def test_it_is_not_taken_for_a_detector(tmp_path: Path) -> None:
    write_torch_file(tmp_path / "a.pth", document())
    with pytest.raises(
        CheckpointError, match=r"is a pretraining of a backbone, not a detector.\n.*edgekit train MODEL"
    ):
        load_checkpoint(tmp_path / "a.pth")
