"""Zero activations and non-zero multiplications against a count by brute force."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgekit.metrics.zeros import ActivationStatistics
from edgekit.models.registry import build


def sparse(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).relu()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 6, 3, padding=1),
        nn.Conv2d(8, 6, 3, stride=2, padding=1, groups=2),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),
        nn.Conv2d(8, 5, 1),
        nn.Conv2d(8, 5, (1, 3), stride=(2, 1), padding=(0, 2), dilation=(1, 2)),
    ],
)
def test_non_zero_macs_are_exact(layer: nn.Conv2d) -> None:
    features = sparse(2, 8, 11, 14)
    with torch.no_grad(), ActivationStatistics(layer, prefix="x") as statistics:
        layer(features)
        ones = nn.functional.conv2d(
            (features != 0).double(),
            torch.ones_like(layer.weight, dtype=torch.double),
            None, layer.stride, layer.padding, layer.dilation, layer.groups,
        )  # fmt: skip
    (counted,) = statistics.layers()
    assert counted.nonzero_macs == int(ones.sum())
    assert counted.activations == features.numel()
    assert counted.zeros == int((features == 0).sum())
    assert counted.zero_share == pytest.approx(float((features == 0).double().mean()))


def test_images_add_up_and_spared_ones_are_all_zeros() -> None:
    layer = nn.Conv2d(4, 4, 1)
    statistics = ActivationStatistics(layer)
    for _ in range(3):
        with torch.no_grad(), statistics:
            layer(torch.ones(1, 4, 2, 2))
    with torch.no_grad():
        layer(torch.ones(1, 4, 2, 2))  # outside: not counted
    (counted,) = statistics.layers()
    assert (counted.activations, counted.zeros, counted.nonzero_macs) == (48, 0, 192)
    (counted,) = statistics.layers(images=4)
    assert (counted.activations, counted.zeros, counted.nonzero_macs) == (64, 16, 192)
    assert not layer._forward_pre_hooks


def test_a_layer_that_never_ran_is_left_out() -> None:
    assert ActivationStatistics(nn.Conv2d(1, 1, 1)).layers(images=5) == ()


def test_masked_inputs_of_a_detector_are_zero() -> None:
    torch.manual_seed(0)
    detector = build("mobilenetv2-ssdlite-omg", ("cat",)).eval().detector
    mask = torch.zeros(1, 1, 20, 20)
    mask[..., 4:8, 4:8] = 1  # 16 of 400 cells, and aligned to the coarser levels
    with torch.no_grad(), ActivationStatistics(detector, prefix="detector.") as statistics:
        detector(torch.rand(1, 3, 320, 320), mask)
    shares = {layer.name: layer.zero_share for layer in statistics.layers()}
    assert shares["detector.backbone.stem.conv"] == pytest.approx(0.96)
    assert shares["detector.backbone.blocks.2.expand.conv"] == pytest.approx(0.96)
