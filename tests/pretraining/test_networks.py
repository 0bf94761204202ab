"""The networks: their published sizes and names, which parts learn, and how the target follows."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from edgekit.errors import UsageError
from edgekit.models.backbone import EVERYWHERE, IMAGENET_MEAN, IMAGENET_STD
from edgekit.pretraining.backbones import BACKBONES, STRIDE, find_backbone
from edgekit.pretraining.networks import Branch, Head, Learner, distance, momentum_at


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def small(backbone: str = "pvanet-lite", *, classes: int = 0) -> Learner:
    torch.manual_seed(0)
    width = 0.25 if BACKBONES[backbone].widths else 1.0
    return Learner(backbone, width=width, hidden=16, outputs=8, classes=classes)


def test_parameters_of_the_published_networks() -> None:
    with torch.device("meta"):
        learner = Learner("resnet50", width=1.0, hidden=4096, outputs=256, classes=1000)
    assert parameters(learner.online.encoder) == parameters(learner.target.encoder) == 23_508_032
    assert parameters(learner.online.projector) == parameters(learner.target.projector) == 9_449_472
    assert parameters(learner.predictor) == 2_109_440


def test_heads_have_the_published_names() -> None:
    shapes = {name: tuple(value.shape) for name, value in Head(8, 16, 4).named_parameters()}
    assert shapes == {
        "net.0.weight": (16, 8), "net.0.bias": (16,), "net.1.weight": (16,), "net.1.bias": (16,),
        "net.3.weight": (4, 16),
    }  # fmt: skip


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_ends_in_a_map_of_stride_32(backbone: str) -> None:
    trunk, channels = BACKBONES[backbone].build(0.25 if BACKBONES[backbone].widths else 1.0)
    assert trunk(torch.zeros(2, 3, 64, 96), EVERYWHERE)[-1].shape == (2, channels, 64 // STRIDE, 96 // STRIDE)


def test_resnets_pictures_are_normalised_by_imagenets_statistics() -> None:
    assert (BACKBONES["resnet50"].mean, BACKBONES["resnet50"].std) == (IMAGENET_MEAN, IMAGENET_STD)
    with torch.device("meta"):
        learner = Learner("resnet50", width=1.0, hidden=4, outputs=4, classes=0)
    views = torch.full((1, 3, 2, 2), 200, dtype=torch.uint8)
    wanted = [(200 - mean) / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    assert learner.normalise(views)[0, :, 0, 0].tolist() == pytest.approx(wanted)
    assert small().normalise(views)[0, 0, 0, 0] == (200 - 128) / 128


@pytest.mark.parametrize(
    ("name", "hint"),
    [("mobilenet", "did you mean 'mobilenetv2'?"), ("pvanet-9.1-omg", "did you mean 'pvanet-9.1'?"),
     ("mobilenetv2-ssdlite-omg", "did you mean 'mobilenetv2'?"), ("xyz", "There are: mobilenetv2, resnet50, pvanet")],
)  # fmt: skip
def test_an_unknown_backbone_is_refused(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match="no backbone that can be pretrained is called") as caught:
        find_backbone(name)
    assert hint in str(caught.value)


def test_published_names_of_a_resnet_and_back() -> None:
    with torch.device("meta"):
        trunk, _ = BACKBONES["resnet50"].build(1.0)
    weights = trunk.state_dict()
    published = BACKBONES["resnet50"].published(weights)
    assert {"0.weight", "1.running_var", "4.0.downsample.1.weight", "7.2.conv3.weight"} <= published.keys()
    assert {name.split(".")[0] for name in published} == {"0", "1", "4", "5", "6", "7"}
    assert BACKBONES["resnet50"].own(published).keys() == weights.keys()


def test_the_target_starts_from_random_weights_of_its_own() -> None:
    learner = small()
    online, target = learner.online.state_dict(), learner.target.state_dict()
    weights = [name for name in online if online[name].ndim > 1]
    assert weights
    assert not any(torch.equal(online[name], target[name]) for name in weights)
    assert not any(parameter.requires_grad for parameter in learner.target.parameters())


def test_the_target_follows_by_hand_and_only_its_parameters() -> None:
    learner = small()
    with torch.no_grad():
        for number, parameter in enumerate(learner.online.parameters()):
            parameter.fill_(3.0 + number)
        for parameter in learner.target.parameters():
            parameter.fill_(1.0)
        for branch, value in ((learner.online, 5.0), (learner.target, 7.0)):
            for name, buffer in branch.named_buffers():
                if "running" in name:
                    buffer.fill_(value)
    learner.follow(0.9)
    for number, parameter in enumerate(learner.target.parameters()):
        torch.testing.assert_close(parameter, torch.full_like(parameter, 0.9 * 1 + 0.1 * (3 + number)))
    assert all((buffer == 7).all() for name, buffer in learner.target.named_buffers() if "running" in name)
    learner.follow(1.0)
    assert float(next(learner.target.parameters()).flatten()[0]) == pytest.approx(1.2)


def test_momentum_rises_along_a_cosine_to_one() -> None:
    assert momentum_at(0, 100, 0.97) == pytest.approx(0.97)
    assert momentum_at(50, 100, 0.97) == pytest.approx(0.985)
    assert momentum_at(25, 100, 0.97) == pytest.approx(1 - 0.03 * (1 + math.sqrt(0.5)) / 2)
    assert momentum_at(100, 100, 0.97) == pytest.approx(1.0)


def test_distances_of_directions() -> None:
    first = torch.tensor([[2.0, 0], [3, 0], [5, 0], [1, 1]])
    second = torch.tensor([[7.0, 0], [0, 4], [-6, 0], [1, 0]])
    assert distance(first, second).tolist() == pytest.approx([0, 2, 4, 2 - math.sqrt(2)], abs=1e-6)


def test_a_branch_pools_boxes_or_whole_views() -> None:
    branch = Branch("pvanet-lite", width=0.25, hidden=16, outputs=8).eval()
    views = torch.randn(3, 3, 64, 64)
    whole, pooled = branch(views, None)
    assert whole.shape == (3, 8)
    assert pooled.shape == (3, branch.channels)
    # A box over a whole 2x2 map is sampled in the middle of all cells but the border's: the mean of four is another.
    rows, again = branch(views, torch.tensor([[2, 0.0, 0, 32, 32], [0, 0, 0, 64, 64], [2, 16, 16, 64, 64]]))
    assert rows.shape == (3, 8)
    assert torch.equal(pooled, again)
