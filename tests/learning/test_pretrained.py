"""Detectors that start from a pretraining without labels, and learn from a share of the labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from edgekit.data.datasets import open_dataset
from edgekit.errors import CheckpointError, UsageError
from edgekit.learning.config import TrainConfig
from edgekit.learning.optimiser import OMG, TRUNK
from edgekit.learning.pretrained import measure_norms, read_pretraining
from edgekit.learning.start import labelled_share, open_run
from edgekit.learning.starting import fill, starting_weights
from edgekit.models.checkpoint import load_checkpoint
from edgekit.models.default import default_checkpoint
from edgekit.models.masked_detector import MaskedDetector
from edgekit.models.registry import build
from edgekit.models.resnet import ResNet
from edgekit.models.torch_file import write_torch_file
from edgekit.pretraining.checkpoint import FORMAT, VERSION, weights_of
from edgekit.pretraining.networks import Learner


def written(path: Path, backbone: str, *, width: float = 1.0, **changes: Any) -> tuple[Path, Learner]:
    """An untrained pretraining whose norms have seen something."""
    torch.manual_seed(5)
    learner = Learner(backbone, width=width, hidden=8, outputs=4, classes=0)
    with torch.no_grad():
        for name, value in learner.named_buffers():
            if "running" in name:
                value.uniform_(0.5, 2.0)
    document = {
        "format": FORMAT, "version": VERSION, "epoch": 7, **weights_of(learner),
        "config": {"backbone": backbone, "width_multiplier": width, "method": "scrl"},
        "provenance": {"training_data": "street.mp4"},
    }  # fmt: skip
    write_torch_file(path, {**document, **changes})
    return path, learner


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Learner]:
    return written(tmp_path_factory.mktemp("pretrained") / "pretrained.pth", "mobilenetv2")


def pictures() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(4, 3, 64, 64, generator=generator) * 2 - 1 for _ in range(2)]


def model(name: str, *, width: float = 1.0) -> MaskedDetector:
    torch.manual_seed(0)
    return build(name, ("a", "b"), size=64, width_multiplier=width).eval()


def learnt(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict(network.named_parameters())


@pytest.mark.parametrize("name", ["mobilenetv2-ssdlite-omg", "sparse-detr-mobilenetv2-omg"])
def test_a_mobilenet_fills_trunk_and_mask_network(mobilenet: tuple[Path, Learner], name: str) -> None:
    path, learner = mobilenet
    target = model(name)
    heads = {name: value.clone() for name, value in target.omg.state_dict().items() if name.startswith("lateral")}
    started, source = fill(target, path, pictures=pictures)
    assert started == {OMG, TRUNK}
    assert source is None, "nothing comes from a detector that has seen labels"
    theirs = learnt(learner.online.encoder)
    mine = learnt(target.trunk)
    assert len(mine) > 150
    for parameter, value in mine.items():
        assert torch.equal(value, theirs[parameter]), parameter
    assert torch.equal(target.omg.stem.get_submodule("conv").weight, theirs["stem.conv.weight"])  # type: ignore[arg-type]
    for stage, block, index in ((target.omg.stride_8, 2, 3), (target.omg.stride_32, 0, 10)):
        assert torch.equal(
            stage[block].get_parameter("expand.conv.weight"), theirs[f"blocks.{index}.expand.conv.weight"]
        )
    omg = target.omg.state_dict()
    assert all(torch.equal(omg[name], heads[name]) for name in heads if "running" not in name
               and "tracked" not in name)  # fmt: skip
    assert not target.training


def test_norms_are_measured_on_the_pictures(mobilenet: tuple[Path, Learner]) -> None:
    target = model("mobilenetv2-ssdlite-omg")
    fill(target, mobilenet[0], pictures=pictures)
    batches = pictures()
    for first, stem in ((batches, target.one_stage.backbone.stem),
                        ([torch.nn.functional.avg_pool2d(b, 2) for b in batches], target.omg.stem)):  # fmt: skip
        maps = [stem.get_submodule("conv")(batch) for batch in first]
        norm = stem.get_submodule("bn")
        mean = torch.stack([one.mean(dim=(0, 2, 3)) for one in maps]).mean(0)
        variance = torch.stack([one.transpose(0, 1).flatten(1).var(dim=1) for one in maps]).mean(0)
        torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(norm.running_var, variance, rtol=1e-4, atol=1e-6)
        assert (norm.momentum, norm.training) == (0.03, False)


@pytest.mark.parametrize(
    ("backbone", "name"),
    [("pvanet-lite", "pvanet-lite-omg"), ("pvanet-9.1", "pvanet-9.1-omg"), ("pvanet-9.0", "pvanet-9.0-compressed-omg")],
)
def test_a_pvanet_fills_its_trunk_beside_the_shipped_mask_network(tmp_path: Path, backbone: str, name: str) -> None:
    path, learner = written(tmp_path / "pretrained.pth", backbone, width=0.125)
    target = model(name, width=0.125)
    started, source = fill(target, path, pictures=pictures)
    assert started == {OMG, TRUNK}
    assert source is not None
    assert torch.equal(target.omg.predict.weight, source.model.omg.predict.weight)
    theirs = learnt(learner.online.encoder)
    for parameter, value in learnt(target.trunk).items():
        assert torch.equal(value, theirs[parameter]), parameter
    # Fused norms are measured, too.
    before = learner.online.encoder.state_dict()
    assert not any(
        torch.equal(value, before[name])
        for name, value in target.trunk.state_dict().items()
        if name.endswith("running_var")
    )


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_a_resnet_fills_a_sparse_detr(tmp_path: Path, suffix: str) -> None:
    path, learner = written(tmp_path / f"pretrained{suffix}", "resnet50")
    target = model("sparse-detr-r50-omg")
    started, source = fill(target, path, pictures=pictures)
    assert started == {OMG, TRUNK}
    assert source is not None
    assert isinstance(target.detr.body, ResNet)
    theirs = learner.online.encoder.state_dict()
    for name, value in target.detr.body.state_dict().items():
        assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize(
    ("name", "width", "message"),
    [
        ("pvanet-lite-omg", 0.125, r"(?s)is a pretraining of mobilenetv2 \(width 1\); pvanet-lite-omg stands on "
         r"pvanet-lite \(width 0.125\).*edgekit pretrain pvanet-lite --width-multiplier 0.125 --data"),
        ("sparse-detr-r50-omg", 1.0, r"(?s)sparse-detr-r50-omg stands on resnet50 .*edgekit pretrain resnet50 --data"),
    ],
)  # fmt: skip
def test_another_backbone_is_refused(mobilenet: tuple[Path, Learner], name: str, width: float, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fill(model(name, width=width), mobilenet[0], pictures=pictures)


def test_another_width_is_refused(tmp_path: Path) -> None:
    path, _ = written(tmp_path / "pretrained.pth", "pvanet-lite", width=0.25)
    with pytest.raises(UsageError, match=r"is a pretraining of pvanet-lite \(width 0.25\)"):
        fill(model("pvanet-lite-omg", width=0.125), path, pictures=pictures)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": {}}, "is an incomplete or inconsistent pretraining"),
        ({"online_network_state_dict": {}}, r"lacks \d+ layers of the trunk, e.g. stem.conv.weight"),
        ({"online_network_state_dict": {"encoder.x": torch.tensor([torch.nan])}}, "NaN or infinite values in x"),
        ({"config": {"backbone": "vgg", "width_multiplier": 1.0, "method": "scrl"}}, "inconsistent pretraining: no"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path, _ = written(tmp_path / "pretrained.pth", "mobilenetv2", **changes)
    with pytest.raises(CheckpointError, match=message):
        fill(model("mobilenetv2-ssdlite-omg"), path, pictures=pictures)


def test_other_files_are_no_pretraining() -> None:
    assert read_pretraining(default_checkpoint()) is None
    assert read_pretraining(Path("x.caffemodel")) is None
    assert starting_weights("none") is None


def test_a_run_starts_from_it_and_says_so(mobilenet: tuple[Path, Learner], shapes: Path, tmp_path: Path) -> None:
    config = TrainConfig(epochs=1, batch_size=4, sizes=((0.0, 64),), workers=0, label_share=0.25)
    run = open_run(
        config, data=shapes, output=tmp_path, weights=str(mobilenet[0]), resume=False, device="cpu", threads=None,
        limit=None,
    )  # fmt: skip
    assert run.started == {OMG, TRUNK}
    assert run.config.frozen_blocks == config.frozen_blocks
    assert run.provenance == {
        "training_data": f"{shapes.name} train (6 of 24 pictures)",
        "starting_weights": "pretrained.pth (SCRL without labels on street.mp4, 7 epochs)",
    }
    assert len(run.training_set) == 6
    assert run.steps_per_epoch == 1
    run.start_epoch()
    for batch in run.batches():
        run.step(run.forward(batch))
    run.save()
    assert load_checkpoint(tmp_path / "last.pt").provenance == run.provenance


def test_the_seed_says_which_labels_are_used(shapes: Path) -> None:
    dataset = open_dataset(shapes, "train")
    assert labelled_share(dataset, 1.0, seed=0) is dataset
    tenth = labelled_share(dataset, 0.1, seed=0)
    assert len(tenth) == 2
    assert tenth.classes == dataset.classes
    chosen = [[sample.image_id for sample in labelled_share(dataset, 0.5, seed=seed).samples] for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert chosen[0] == sorted(chosen[0])
    assert {sample.image_id for sample in tenth.samples} <= set(chosen[0]), "a smaller share is a part of a larger one"
    assert len(labelled_share(dataset, 0.001, seed=0)) == 1
    with pytest.raises(UsageError, match="label_share must be above 0 and at most 1, got 0"):
        TrainConfig(label_share=0.0)


def test_measuring_norms_leaves_everything_else() -> None:
    target = model("mobilenetv2-ssdlite-omg")
    before = {name: value.clone() for name, value in target.state_dict().items()}
    measure_norms(target.omg, target.omg, pictures())
    changed = {name for name, value in target.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert {name.partition(".")[0] for name in changed} == {"omg"}
    assert {name.rpartition(".")[2] for name in changed} == {"running_mean", "running_var", "num_batches_tracked"}
