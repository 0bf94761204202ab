"""Swin-T against its definition, one position at a time."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from edgekit.models.backbone import Backbone
from edgekit.models.swin import Block, DropPath, SwinTransformer, wrap_mask

Weights = dict[str, Tensor]

READ = {"swin": (192, 384, 768), "resnet": (512, 1024, 2048)}
"""Channels of the maps that a transformer reads."""


def shaken(network: torch.nn.Module) -> torch.nn.Module:
    """With noise on every parameter: small ones, and norms at their defaults, would hide an error."""
    for parameter in network.parameters():
        with torch.no_grad():
            parameter.add_(torch.randn(parameter.shape) * 0.2)
    return network.eval()


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    product = x @ weights[f"{name}.weight"].T
    return product + weights[f"{name}.bias"] if f"{name}.bias" in weights else product


def layer_norm(weights: Weights, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    deviation = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return centred / deviation * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def attention(weights: Weights, heads: int, window: int, shift: int, x: Tensor) -> Tensor:
    """Equation 4 on a map [H, W, C]: each position attends to those in the same cell of a grid that starts at shift.

    Cells at the map's edges are smaller; nothing is moved or wrapped.
    """
    rows, columns, channels = x.shape
    height, width, size = -(-rows // window) * window, -(-columns // window) * window, channels // heads
    padded = x.new_zeros(height, width, channels)
    padded[:rows, :columns] = x
    query, key, value = linear(weights, "attn.qkv", padded).split(channels, dim=-1)
    cells = defaultdict(list)
    for i in range(height):
        for j in range(width):
            cells[(i - shift) // window, (j - shift) // window].append((i, j))
    table, mixed = weights["attn.relative_position_bias_table"], torch.zeros_like(padded)
    for cell in cells.values():
        for i, j in cell:
            bias = torch.stack([table[(i - p + window - 1) * (2 * window - 1) + j - q + window - 1] for p, q in cell])
            for head in range(heads):
                part = slice(head * size, (head + 1) * size)
                scores = torch.stack([query[i, j, part] @ key[p, q, part] for p, q in cell]) / size**0.5 + bias[:, head]
                weight = (scores - scores.max()).exp()
                values = torch.stack([value[p, q, part] for p, q in cell])
                mixed[i, j, part] = (weight / weight.sum()) @ values
    return linear(weights, "attn.proj", mixed)[:rows, :columns]


def block(weights: Weights, heads: int, window: int, shift: int, x: Tensor) -> Tensor:
    x = x + attention(weights, heads, window, shift, layer_norm(weights, "norm1", x))
    hidden = linear(weights, "mlp.fc1", layer_norm(weights, "norm2", x))
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    return x + linear(weights, "mlp.fc2", hidden)


def merge(weights: Weights, x: Tensor) -> Tensor:
    rows, columns, channels = -(-x.shape[0] // 2), -(-x.shape[1] // 2), x.shape[2]
    four = x.new_zeros(rows, columns, 4, channels)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            four[i // 2, j // 2, 2 * (j % 2) + i % 2] = x[i, j]
    return linear(weights, "reduction", layer_norm(weights, "norm", four.reshape(rows, columns, 4 * channels)))


def under(weights: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def reference(
    weights: Weights, depths: tuple[int, ...], heads: tuple[int, ...], window: int, picture: Tensor
) -> list[Tensor]:
    """The trunk on one picture [3, H, W], from a float64 state dict alone."""
    rows, columns = -(-picture.shape[1] // 4), -(-picture.shape[2] // 4)
    padded = picture.new_zeros(3, rows * 4, columns * 4)
    padded[:, : picture.shape[1], : picture.shape[2]] = picture
    x = F.conv2d(padded[None], weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=4)[0]
    x = layer_norm(weights, "patch_embed.norm", x.permute(1, 2, 0))
    maps = []
    for stage, depth in enumerate(depths):
        for index in range(depth):
            shift = window // 2 if index % 2 else 0
            x = block(under(weights, f"layers.{stage}.blocks.{index}."), heads[stage], window, shift, x)
        if stage > 0:
            maps.append(layer_norm(weights, f"norm{stage}", x).permute(2, 0, 1))
        if stage < 3:
            x = merge(under(weights, f"layers.{stage}.downsample."), x)
    return maps


def doubled(network: torch.nn.Module) -> Weights:
    return {name: value.double() for name, value in network.state_dict().items()}


def relative_error(got: Tensor, want: Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max())


@pytest.mark.parametrize("shift", [0, 3])
@pytest.mark.parametrize(("rows", "columns"), [(7, 7), (8, 13), (14, 5), (2, 3)])
def test_a_block_is_the_papers(rows: int, columns: int, shift: int) -> None:
    torch.manual_seed(4)
    ours = shaken(Block(8, 2, 7, shift, 0.0))
    features = torch.randn(2, rows, columns, 8)
    with torch.no_grad():
        got = ours(features, wrap_mask(features, 7, 3))
    weights = doubled(ours)
    for picture in range(2):
        assert relative_error(got[picture], block(weights, 2, 7, shift, features[picture].double())) <= 1e-4


@pytest.mark.parametrize(("height", "width"), [(61, 45), (64, 32)])
def test_the_network_is_the_papers(height: int, width: int) -> None:
    torch.manual_seed(5)
    depths, heads = (2, 1, 3, 2), (1, 2, 2, 4)
    network = shaken(SwinTransformer(4, depths, heads, window=3))
    pictures = torch.randn(2, 3, height, width)
    with torch.no_grad():
        maps = network(pictures)
    weights = doubled(network)
    for picture in range(2):
        wanted = reference(weights, depths, heads, 3, pictures[picture].double())
        for got, want, channels, stride in zip(maps, wanted, (8, 16, 32), (8, 16, 32), strict=True):
            assert got.shape == (2, channels, -(-height // stride), -(-width // stride))
            assert relative_error(got[picture], want) <= 1e-4


def test_the_trunk_has_as_many_parameters_as_published() -> None:
    with torch.device("meta"):
        network = SwinTransformer()
    assert network.channels == (192, 384, 768)
    count = sum(item.numel() for item in network.parameters())
    assert count == 27_520_506
    # Of Sparse DETR's two Deformable DETRs, all but the trunk and what reads its maps is the same: 1x1 convolutions
    # to 256 channels of the three maps, and a 3x3 one of the last.
    readers = {name: 256 * (sum(maps) + 9 * maps[-1]) for name, maps in READ.items()}
    assert 40_612_699 - count - readers["swin"] == 40_069_665 - 23_454_912 - readers["resnet"]
    network.freeze_stem()
    assert sum(item.numel() for item in network.parameters() if not item.requires_grad) == 40_612_699 - 40_308_613


def test_names_are_the_published_weights() -> None:
    with torch.device("meta"):
        names = set(SwinTransformer().state_dict())
    attention_names = {"attn.relative_position_bias_table", "attn.relative_position_index"}
    layers = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    block_names = attention_names | {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    wanted = {f"{layer}.{kind}" for layer in ("patch_embed.proj", "patch_embed.norm") for kind in ("weight", "bias")}
    wanted |= {f"norm{index}.{kind}" for index in (1, 2, 3) for kind in ("weight", "bias")}
    for stage, depth in enumerate((2, 2, 6, 2)):
        wanted |= {f"layers.{stage}.blocks.{index}.{name}" for index in range(depth) for name in block_names}
    for stage in range(3):
        wanted |= {f"layers.{stage}.downsample.{name}" for name in ("norm.weight", "norm.bias", "reduction.weight")}
    assert names == wanted


def test_residuals_are_dropped_in_training_only() -> None:
    torch.manual_seed(6)
    drop, ones = DropPath(0.25), torch.ones(4000, 1, 2)
    dropped = drop(ones)
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(dropped[:, :, 0], dropped[:, :, 1])
    assert float(dropped.mean()) == pytest.approx(1, abs=0.05)
    assert torch.equal(drop.eval()(ones), ones)


def test_rates_rise_block_by_block_and_the_frozen_stem_drops_nothing() -> None:
    with torch.device("meta"):
        network = SwinTransformer()
    rates = [module.rate for module in network.modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx([0.2 * index / 11 for index in range(12)])
    network.freeze_stem()
    assert [module.rate for module in network.modules() if isinstance(module, DropPath)][:2] == [0.0, 0.0]


def test_the_stem_is_frozen_and_the_rest_learns() -> None:
    swin = SwinTransformer(4, (1, 1, 1, 1), (1, 1, 1, 1), drop_path=0.0)
    network: Backbone = swin
    network.freeze_stem()
    sum(level.square().sum() for level in network(torch.randn(1, 3, 32, 32))).backward()  # type: ignore[union-attr]
    still = {name for name, item in swin.named_parameters() if item.grad is None}
    assert still == {name for name, _ in swin.named_parameters() if name.startswith(("patch_embed.", "layers.0."))}
