"""ResNet-50 against its definition, and batch norm with fixed statistics."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.models.backbone import Backbone
from edgekit.models.frozen_batch_norm import FrozenBatchNorm2d
from edgekit.models.resnet import ResNet

NORM_VALUES = {"weight": (0.5, 1.5), "bias": (-0.3, 0.3), "running_mean": (-0.3, 0.3), "running_var": (0.5, 2.0)}


def shaken(network: ResNet, seed: int = 1) -> ResNet:
    """With every vector of every norm off its default, which would hide an error."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, FrozenBatchNorm2d | nn.BatchNorm2d):
            for name, (low, high) in NORM_VALUES.items():
                with torch.no_grad():
                    getattr(module, name).uniform_(low, high, generator=generator)
    return network


def norm(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """Batch norm in evaluation, from its definition."""
    weight, bias, mean, variance = (weights[f"{name}.{part}"].reshape(1, -1, 1, 1) for part in NORM_VALUES)
    return (x - mean) / (variance + 1e-5) ** 0.5 * weight + bias


def reference(weights: dict[str, Tensor], layers: tuple[int, ...], x: Tensor) -> list[Tensor]:
    """Table 1 of arXiv 1512.03385, in float64, from a state dict alone."""
    weights = {name: value.double() for name, value in weights.items()}
    x = norm(weights, "bn1", F.conv2d(x.double(), weights["conv1.weight"], stride=2, padding=3)).clamp(min=0)
    x = F.max_pool2d(x, 3, 2, 1)
    maps = []
    for stage, blocks in enumerate(layers, start=1):
        for block in range(blocks):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = norm(weights, f"{name}.bn1", F.conv2d(x, weights[f"{name}.conv1.weight"])).clamp(min=0)
            y = F.conv2d(y, weights[f"{name}.conv2.weight"], stride=stride, padding=1)
            y = norm(weights, f"{name}.bn2", y).clamp(min=0)
            y = norm(weights, f"{name}.bn3", F.conv2d(y, weights[f"{name}.conv3.weight"]))
            if block == 0:
                x = F.conv2d(x, weights[f"{name}.downsample.0.weight"], stride=stride)
                x = norm(weights, f"{name}.downsample.1", x)
            x = (x + y).clamp(min=0)
        maps.append(x)
    return maps[1:]


def relative_error(got: Tensor, want: Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max())


@pytest.mark.parametrize(("layers", "width"), [((1, 2, 1, 2), 8), ((3, 4, 6, 3), 16)])
@pytest.mark.parametrize("kind", [FrozenBatchNorm2d, nn.BatchNorm2d])
def test_the_network_is_the_papers(layers: tuple[int, int, int, int], width: int, kind: type[nn.Module]) -> None:
    torch.manual_seed(2)
    network = shaken(ResNet(layers, width, kind)).eval()
    pictures = torch.randn(2, 3, 75, 101)  # no multiple of any stride
    with torch.no_grad():
        maps = network(pictures)
    for got, want, channels, stride in zip(
        maps, reference(network.state_dict(), layers, pictures), network.channels, (8, 16, 32), strict=True
    ):
        assert got.shape == (2, channels, -(-75 // stride), -(-101 // stride))
        assert relative_error(got, want) <= 1e-4


def test_the_trunk_has_as_many_parameters_as_published() -> None:
    with torch.device("meta"):
        normal, frozen = ResNet(norm=nn.BatchNorm2d), ResNet()
    assert normal.channels == frozen.channels == (512, 1024, 2048)
    assert sum(item.numel() for item in normal.parameters()) == 23_508_032
    assert sum(item.numel() for item in frozen.parameters()) == 23_508_032 - 53_120
    # Deformable DETR's count of trainable parameters is 222,400 below that of all (Sparse DETR's own code).
    frozen.freeze_stem()
    assert sum(item.numel() for item in frozen.parameters() if not item.requires_grad) == 222_400


def test_the_stem_is_frozen_and_the_rest_learns() -> None:
    network: Backbone = (resnet := ResNet((1, 1, 1, 1), 4))
    network.freeze_stem()
    sum(level.sum() for level in network(torch.randn(1, 3, 32, 32))).backward()  # type: ignore[union-attr]
    learns = {name.split(".")[0]: item.grad is not None for name, item in resnet.named_parameters()}
    assert learns == {"conv1": False, "layer1": False, "layer2": True, "layer3": True, "layer4": True}


def test_frozen_norms_do_not_measure() -> None:
    network = shaken(ResNet((1, 1, 1, 1), 4)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    pictures = torch.randn(2, 3, 32, 32)
    training = network(pictures)
    for got, want in zip(network.eval()(pictures), training, strict=True):
        assert torch.equal(got, want)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_both_kinds_of_norm_read_each_others_weights() -> None:
    learned, frozen = shaken(ResNet((1, 1, 1, 1), 4, nn.BatchNorm2d)).eval(), ResNet((1, 1, 1, 1), 4)
    assert not [name for name in frozen.state_dict() if name.endswith("num_batches_tracked")]
    frozen.load_state_dict(learned.state_dict(), strict=True)
    pictures = torch.randn(1, 3, 64, 64)
    for got, want in zip(frozen(pictures), learned(pictures), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    again = ResNet((1, 1, 1, 1), 4, nn.BatchNorm2d)
    again.load_state_dict(frozen.state_dict(), strict=True)
    assert torch.equal(again.state_dict()["layer4.0.bn3.running_var"], frozen.layer4[0].bn3.running_var)


def test_a_frozen_norm_still_misses_what_it_needs() -> None:
    weights = FrozenBatchNorm2d(3).state_dict()
    del weights["running_var"]
    weights["momentum"] = torch.zeros(())
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "running_var"') as caught:
        FrozenBatchNorm2d(3).load_state_dict(weights)
    assert 'Unexpected key(s) in state_dict: "momentum"' in str(caught.value)
    assert repr(FrozenBatchNorm2d(3)) == "FrozenBatchNorm2d(3, eps=1e-05)"
