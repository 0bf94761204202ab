"""Labels of the scoring network: held against loops over every location, and against what attention really reads."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from edgekit.learning.dam import attention_map, correlation, mask_prediction_loss, most_valued
from edgekit.models.detr_output import DecoderAttention

SHAPES = ((4, 6), (2, 3), (1, 2))
TOKENS = 32


def random_attention(seed: int, *, dtype: torch.dtype = torch.float32) -> DecoderAttention:
    """Two pictures, 2 layers, 5 queries, 2 heads, 3 levels, 4 points; a part of the locations lies outside."""
    generator = torch.Generator().manual_seed(seed)
    locations = torch.rand(2, 2, 5, 2, 3, 4, 2, generator=generator) * 1.4 - 0.2
    weights = torch.rand(2, 2, 5, 2, 12, generator=generator).softmax(-1).view(2, 2, 5, 2, 3, 4)
    return DecoderAttention(locations=locations.to(dtype), weights=weights.to(dtype))


def by_loops(attention: DecoderAttention, *, centre: float = 0.5) -> list[list[float]]:
    pictures, layers, queries, heads, levels, points = attention.weights.shape
    received = [[0.0] * TOKENS for _ in range(pictures)]
    for picture in range(pictures):
        for layer, query, head, level, point in torch.cartesian_prod(
            *(torch.arange(count) for count in (layers, queries, heads, levels, points))
        ).tolist():
            x, y = attention.locations[picture, layer, query, head, level, point].tolist()
            rows, columns = SHAPES[level]
            start = sum(r * c for r, c in SHAPES[:level])
            x, y = x * columns - centre, y * rows - centre
            for row in range(rows):
                for column in range(columns):
                    share = max(0.0, 1 - abs(x - column)) * max(0.0, 1 - abs(y - row))
                    weight = float(attention.weights[picture, layer, query, head, level, point])
                    received[picture][start + row * columns + column] += share * weight
    return received


@pytest.mark.parametrize("centre", [0.5, 0.0])
def test_every_location_gives_its_corners_their_shares(centre: float) -> None:
    attention = random_attention(1)
    wanted = torch.tensor(by_loops(attention, centre=centre))
    torch.testing.assert_close(attention_map(attention, SHAPES, centre=centre), wanted, rtol=1e-5, atol=1e-5)


def test_a_token_gets_what_the_sum_of_all_that_is_read_owes_it() -> None:
    """The derivative of a bilinear read by the map that is read, by PyTorch's own ``grid_sample``."""
    attention = random_attention(2)
    owed = []
    for level, (rows, columns) in enumerate(SHAPES):
        values = torch.zeros(2, 1, rows, columns, requires_grad=True)
        grid = attention.locations[:, :, :, :, level].reshape(2, 1, -1, 2) * 2 - 1
        read = F.grid_sample(values, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        (read[:, 0, 0] * attention.weights[:, :, :, :, level].flatten(1)).sum().backward()
        assert values.grad is not None
        owed.append(values.grad.flatten(1))
    torch.testing.assert_close(attention_map(attention, SHAPES), torch.cat(owed, 1), rtol=1e-5, atol=1e-5)


def test_a_location_in_the_middle_of_a_cell_is_that_token_alone() -> None:
    locations = torch.full((1, 1, 1, 1, 3, 1, 2), 5.0)  # outside
    locations[0, 0, 0, 0, 0, 0] = torch.tensor([2.5 / 6, 1.5 / 4])
    received = attention_map(DecoderAttention(locations=locations, weights=torch.ones(1, 1, 1, 1, 3, 1)), SHAPES)
    assert received.nonzero().tolist() == [[0, 1 * 6 + 2]]
    assert float(received.sum()) == pytest.approx(1)


def test_what_is_not_finite_counts_nothing_and_half_precision_is_summed_in_float32() -> None:
    attention = random_attention(3)
    wanted = random_attention(3)
    for place, value in ((0, math.nan), (1, math.inf), (2, -math.inf), (3, 1e30)):
        attention.locations[0, 0, 0, 0, 0, place, 0] = value
        wanted.weights[0, 0, 0, 0, 0, place] = 0
    attention.weights[1, 0, 0, 0, 0, 0] = math.nan
    wanted.weights[1, 0, 0, 0, 0, 0] = 0
    torch.testing.assert_close(attention_map(attention, SHAPES), attention_map(wanted, SHAPES))
    assert attention_map(random_attention(3, dtype=torch.bfloat16), SHAPES).dtype == torch.float32


def test_each_picture_wants_its_own_number_of_tokens_and_none_of_the_padding() -> None:
    received = torch.tensor([[0.0, 3, 1, 2, 9], [5, 4, 0, 0, 6]])
    padding = torch.tensor([[False, False, False, False, True], [False] * 5])
    wanted = most_valued(received, torch.tensor([2, 3]), padding)
    assert wanted.tolist() == [[False, True, False, True, False], [True, True, False, False, True]]


def test_more_tokens_kept_than_there_are() -> None:
    padding = torch.zeros(1, 3, dtype=torch.bool)
    assert most_valued(torch.rand(1, 3), torch.tensor([4]), padding).all()


def test_the_loss_is_the_mean_cross_entropy_and_reaches_only_the_scores() -> None:
    generator = torch.Generator().manual_seed(4)
    scores = torch.randn(2, TOKENS, generator=generator, requires_grad=True)
    received, kept = attention_map(random_attention(5), SHAPES), torch.tensor([3, 7])
    padding = torch.zeros(2, TOKENS, dtype=torch.bool)
    padding[0, 20:] = True
    loss = mask_prediction_loss(scores, received, kept, padding)
    total = 0.0
    for picture in range(2):
        valid = [token for token in range(TOKENS) if not padding[picture, token]]
        best = sorted(valid, key=lambda token: -float(received[picture, token]))[: int(kept[picture])]
        for token in range(TOKENS):
            chance = 1 / (1 + math.exp(-float(scores.detach()[picture, token])))
            total -= math.log(chance if token in best else 1 - chance)
    assert float(loss.detach()) == pytest.approx(total / (2 * TOKENS), rel=1e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    assert not received.requires_grad


def test_the_loss_is_that_of_pytorch() -> None:
    scores, received = torch.randn(2, TOKENS), torch.rand(2, TOKENS)
    kept, padding = torch.tensor([4, 9]), torch.zeros(2, TOKENS, dtype=torch.bool)
    wanted: Tensor = F.multilabel_soft_margin_loss(scores, most_valued(received, kept, padding).float())
    torch.testing.assert_close(mask_prediction_loss(scores, received, kept, padding), wanted)


def test_correlation_is_the_attention_that_is_kept() -> None:
    received = torch.tensor([[1.0, 2, 3, 4], [0, 0, 0, 0], [1, 1, 1, 1]])
    scores = torch.tensor([[9.0, 0, 0, 8], [0, 1, 2, 3], [0, 1, 2, 3]])
    padding = torch.zeros(3, 4, dtype=torch.bool)
    found = correlation(scores, received, torch.tensor([2, 2, 1]), padding)
    assert found.tolist() == pytest.approx([0.5, 0, 0.25])
