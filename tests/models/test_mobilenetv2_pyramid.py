"""MobileNetV2's maps for a transformer are those of the trunk that the project has."""

from __future__ import annotations

import torch
from torch import nn

from edgekit.models.backbone import Backbone
from edgekit.models.masking import MaskPyramid
from edgekit.models.mobilenetv2 import MobileNetV2
from edgekit.models.mobilenetv2_pyramid import MobileNetV2Pyramid

EVERYTHING = MaskPyramid(None)


def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def test_the_maps_are_the_trunks() -> None:
    torch.manual_seed(7)
    trunk, pyramid = MobileNetV2().eval(), MobileNetV2Pyramid().eval()
    for norm in norms(trunk):
        for vector, (low, high) in {"weight": (0.8, 1.6), "bias": (-0.2, 0.2), "running_var": (0.5, 2.0)}.items():
            nn.init.uniform_(getattr(norm, vector), low, high)
        nn.init.normal_(norm.running_mean, std=0.1)  # type: ignore[arg-type]
    weights = {name: value for name, value in trunk.state_dict().items() if not name.startswith("last.")}
    pyramid.load_state_dict(weights, strict=True)
    pictures = torch.rand(2, 3, 75, 101) * 2 - 1
    with torch.no_grad():
        stride_8, stride_16, stride_32 = pyramid(pictures)
        expansion, last = trunk(pictures, EVERYTHING)
        following = stride_8
        for block in trunk.blocks[6:13]:
            following, _ = block(following, EVERYTHING)
        torch.testing.assert_close(stride_16, following)
        torch.testing.assert_close(trunk.blocks[13](stride_16, EVERYTHING)[1], expansion)
        torch.testing.assert_close(trunk.last(stride_32, EVERYTHING), last)
    assert [tuple(level.shape) for level in (stride_8, stride_16, stride_32)] == [
        (2, channels, -(-75 // stride), -(-101 // stride))
        for channels, stride in zip(pyramid.channels, (8, 16, 32), strict=True)
    ]


def test_parameters() -> None:
    with torch.device("meta"):
        frozen, normal, trunk = MobileNetV2Pyramid(), MobileNetV2Pyramid(frozen_norms=False), MobileNetV2()
    count = sum(item.numel() for item in normal.parameters())
    assert count == 1_811_712 == sum(item.numel() for item in trunk.parameters()) - 320 * 1280 - 2 * 1280
    learned = sum(item.numel() for item in frozen.parameters() if item.requires_grad)
    assert count - learned == 31_552 == sum(2 * norm.num_features for norm in norms(normal))
    assert frozen.channels == (32, 96, 320)


def test_frozen_norms_stay_as_they_are() -> None:
    torch.manual_seed(8)
    pyramid = MobileNetV2Pyramid().train()
    before = {name: value.clone() for name, value in pyramid.state_dict().items() if ".bn." in name}
    pictures = torch.rand(1, 3, 32, 32) * 2 - 1
    optimiser = torch.optim.SGD([item for item in pyramid.parameters() if item.requires_grad], lr=0.1)
    training = pyramid(pictures)
    with torch.no_grad():
        evaluated = pyramid.eval()(pictures)
    for got, want in zip(training, evaluated, strict=True):
        torch.testing.assert_close(got, want)
    sum(level.sum() for level in training).backward()  # type: ignore[union-attr]
    optimiser.step()
    assert len(before) == 51 * 5
    assert all(torch.equal(pyramid.state_dict()[name], value) for name, value in before.items())


def test_other_norms_measure() -> None:
    pyramid = MobileNetV2Pyramid(frozen_norms=False)
    pyramid(torch.rand(2, 3, 32, 32))
    assert all(norm.training and int(norm.num_batches_tracked) == 1 for norm in norms(pyramid))  # type: ignore[arg-type]
    assert not any(norm.training for norm in norms(pyramid.eval()))


def test_the_stem_is_frozen_and_the_rest_learns() -> None:
    pyramid = MobileNetV2Pyramid(frozen_norms=False)
    network: Backbone = pyramid
    network.freeze_stem()
    sum(level.sum() for level in network(torch.rand(2, 3, 32, 32))).backward()  # type: ignore[union-attr]
    still = {name for name, item in pyramid.named_parameters() if item.grad is None}
    frozen = ("stem.", "blocks.0.", "blocks.1.", "blocks.2.")
    assert still == {name for name, _ in pyramid.named_parameters() if name.startswith(frozen)}
