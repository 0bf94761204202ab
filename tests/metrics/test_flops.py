"""Operations are counted by fvcore's rules, and to the module that does them."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="networks are PyTorch modules")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from edgekit.metrics.flops import count_flops  # noqa: E402


@pytest.mark.parametrize(
    ("module", "size", "wanted"),
    [
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), (2, 3, 10, 12), 2 * 8 * 5 * 6 * 27),
        (nn.Conv2d(8, 8, 3, groups=8), (1, 8, 6, 6), 8 * 16 * 9),
        (nn.ConvTranspose2d(4, 6, 4, stride=2), (1, 4, 5, 5), 4 * 6 * 16 * 25),
        (nn.Linear(5, 7), (2, 3, 5), 6 * 35),
        (nn.Linear(5, 7, bias=False), (2, 3, 5), 6 * 35),
        (nn.LayerNorm(8), (2, 3, 8), 5 * 48),
        (nn.GroupNorm(2, 8), (1, 8, 3, 3), 5 * 72),
        (nn.ReLU(), (4, 4), 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_one_layer(module: nn.Module, size: tuple[int, ...], wanted: int, device: str) -> None:
    module, inputs = module.to(device), torch.empty(size, device=device)
    assert count_flops(module, lambda: module(inputs))[module] == wanted


def test_attention_counts_both_products_and_its_layers() -> None:
    attention = nn.MultiheadAttention(16, 4, batch_first=True).eval()
    queries, keys = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    counts = count_flops(attention, lambda: attention(queries, keys, keys, need_weights=False))
    layers = 2 * (5 * 256 + 2 * 7 * 256 + 5 * 256)
    assert sum(counts.values()) == layers + 2 * (2 * 5 * 7 * 16)


def test_sampling_and_resizing() -> None:
    class Network(nn.Module):
        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            grown = F.interpolate(pictures, scale_factor=2)
            return F.grid_sample(grown, torch.zeros(1, 3, 4, 2), align_corners=False)

    network = Network()
    assert count_flops(network, lambda: network(torch.randn(1, 2, 4, 4)))[network] == 2 * 64 + 4 * 2 * 12


def test_each_part_has_its_own() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 2), nn.ReLU()))
    counts = count_flops(network, lambda: network(torch.randn(3, 4)))
    assert {network[0]: 48, network[1][0]: 24} == counts
    assert not network[0]._forward_hooks
