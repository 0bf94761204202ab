"""A DETR of fixed shapes computes what the one that is trained does."""

from __future__ import annotations

from types import ModuleType

import pytest

torch = pytest.importorskip("torch", reason="networks are PyTorch modules")

from edgekit.models.deformable_attention import DeformableAttention  # noqa: E402
from edgekit.models.frozen_batch_norm import FrozenBatchNorm2d  # noqa: E402
from edgekit.models.masking import MaskPyramid  # noqa: E402
from edgekit.models.static_attention import StaticAttention, StaticSelfAttention  # noqa: E402
from edgekit.models.static_detr import StaticDetr, level_shapes  # noqa: E402
from edgekit.spec import token_budget  # noqa: E402

SHAPES = ((5, 7), (3, 1), (1, 4), (1, 1))
"""Also maps of one row, one column and one cell, where there is no neighbour."""


@pytest.mark.parametrize("coordinates", [2, 4])
def test_attention_by_gathers_is_attention_by_grid_sample(coordinates: int) -> None:
    torch.manual_seed(1)
    attention = DeformableAttention(16, levels=4, heads=2, points=3)
    with torch.no_grad():
        for item in attention.parameters():
            item += 0.3 * torch.randn_like(item)
    tokens = torch.randn(sum(rows * columns for rows, columns in SHAPES), 16)
    queries = torch.randn(40, 16)
    references = torch.rand(40, coordinates) * 1.4 - 0.2  # some of them beyond the picture
    padding = torch.zeros(1, len(tokens), dtype=torch.bool)
    with torch.no_grad():
        spread = references[None, :, None].expand(-1, -1, 4, -1)
        wanted = attention(queries[None], spread, tokens[None], SHAPES, padding).output[0]
        found = StaticAttention(attention, SHAPES)(queries, references, tokens)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_self_attention() -> None:
    torch.manual_seed(2)
    attention = torch.nn.MultiheadAttention(16, 4, batch_first=True).eval()
    placed, queries = torch.randn(2, 6, 16)
    with torch.no_grad():
        wanted = attention(placed[None], placed[None], queries[None], need_weights=False)[0][0]
        found = StaticSelfAttention(attention)(placed, queries)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("share", [None, 0.3])
@pytest.mark.parametrize("masked", [False, True])
def test_the_whole_network(tiny_detr: ModuleType, share: float | None, masked: bool) -> None:
    model = tiny_detr.network(share=share)
    given = tiny_detr.inputs(masked=masked)
    wanted = tiny_detr.expected(model, given)
    static = StaticDetr(model, height=tiny_detr.SIDE, width=tiny_detr.SIDE).eval()
    with torch.no_grad():
        logits, boxes = static(*(torch.from_numpy(value) for value in given.values()))
    torch.testing.assert_close(logits, torch.from_numpy(wanted["class_logits"]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(boxes, torch.from_numpy(wanted["boxes"]), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(module, FrozenBatchNorm2d) for module in static.modules())


def test_only_tokens_of_the_mask_are_refined(tiny_detr: ModuleType) -> None:
    static = StaticDetr(tiny_detr.network(), height=tiny_detr.SIDE, width=tiny_detr.SIDE).eval()
    mask = torch.from_numpy(tiny_detr.inputs(masked=True)["mask"])
    allowed = static.allowed(MaskPyramid(mask))
    tokens = torch.randn(static.positions.shape)
    with torch.no_grad():
        moved = (static.encode(tokens, allowed) != tokens).any(1)
    assert static.budget == token_budget(len(tokens), 0.3) > int(allowed.sum())
    assert torch.equal(moved, allowed[:, 0] > 0)


def test_levels_and_budget() -> None:
    assert level_shapes(height=800, width=1066, levels=4) == ((100, 134), (50, 67), (25, 34), (13, 17))
    assert token_budget(17_821, 0.1) == 1783
    assert token_budget(9, 1.0) == 9
