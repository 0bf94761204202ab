"""Deformable attention and its surroundings against loops, and against what the papers say of their start."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="networks are PyTorch modules")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from edgekit.models.deformable_attention import DeformableAttention, sample  # noqa: E402
from edgekit.models.position_encoding import SinePositionEncoding  # noqa: E402
from edgekit.models.token_maps import token_centres, token_proposals, valid_ratios  # noqa: E402
from edgekit.models.token_scoring import ScoringNetwork, select_tokens  # noqa: E402


def slow_sample(values, shapes, locations, weights):
    """One number after another."""
    batch, count, heads, _, points, _ = locations.shape
    depth = values.shape[-1] // heads
    result = torch.zeros(batch, count, heads * depth, dtype=values.dtype)
    for b in range(batch):
        for q in range(count):
            for h in range(heads):
                start = 0
                for level, (rows, columns) in enumerate(shapes):
                    for p in range(points):
                        x, y = locations[b, q, h, level, p].tolist()
                        x, y = x * columns - 0.5, y * rows - 0.5
                        for row in (math.floor(y), math.floor(y) + 1):
                            for column in (math.floor(x), math.floor(x) + 1):
                                if 0 <= row < rows and 0 <= column < columns:
                                    share = (1 - abs(x - column)) * (1 - abs(y - row)) * weights[b, q, h, level, p]
                                    at = start + row * columns + column
                                    part = slice(h * depth, (h + 1) * depth)
                                    result[b, q, part] += share * values[b, at, part]
                    start += rows * columns
    return result


@settings(max_examples=20, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=3),
    heads=st.integers(1, 3),
    points=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_sampling_is_bilinear_and_nothing_beyond_the_map(shapes, heads, points, seed) -> None:
    generator = torch.Generator().manual_seed(seed)

    def numbers(*size: int):
        return torch.rand(*size, generator=generator, dtype=torch.float64)

    tokens = sum(rows * columns for rows, columns in shapes)
    values = numbers(2, tokens, heads * 2) - 0.5
    locations = numbers(2, 3, heads, len(shapes), points, 2) * 1.6 - 0.3  # some outside
    weights = numbers(2, 3, heads, len(shapes), points)
    wanted = slow_sample(values, shapes, locations, weights)
    torch.testing.assert_close(sample(values, shapes, locations, weights), wanted, rtol=1e-9, atol=1e-9)


def test_at_the_start_each_head_looks_its_own_way_and_weighs_alike() -> None:
    attention = DeformableAttention(32, levels=2, heads=8, points=4)
    shapes = ((8, 8), (4, 4))
    queries, tokens = torch.randn(1, 3, 32), torch.randn(1, 80, 32)
    references = torch.full((1, 3, 2, 2), 0.5)
    got = attention(queries, references, tokens, shapes, torch.zeros(1, 80, dtype=torch.bool))
    torch.testing.assert_close(got.weights, torch.full_like(got.weights, 1 / 8))
    steps = (got.locations - 0.5) * torch.tensor([[8.0, 8.0], [4.0, 4.0]])[:, None]  # in cells
    torch.testing.assert_close(steps.abs().amax(-1)[0, 0, 0, 0], torch.arange(1.0, 5.0))
    assert len({tuple(round(value, 3) for value in head) for head in steps[0, 0, :, 0, 0].tolist()}) == 8


def test_padding_counts_as_zeros() -> None:
    attention = DeformableAttention(16, levels=1, heads=2, points=2)
    tokens, queries = torch.randn(1, 12, 16), torch.randn(1, 2, 16)
    padding = torch.zeros(1, 12, dtype=torch.bool)
    padding[0, 8:] = True
    changed = tokens.clone()
    changed[0, 8:] = 100.0
    references = torch.tensor([0.5, 0.9]).expand(1, 2, 1, 2)
    outputs = [attention(queries, references, x, ((3, 4),), padding).output for x in (tokens, changed)]
    assert torch.equal(*outputs)


def test_channels_that_heads_do_not_divide() -> None:
    with pytest.raises(ValueError, match="30 channels cannot be shared out to 8 heads"):
        DeformableAttention(30, heads=8)


def test_positions_are_of_the_picture_and_not_of_its_padding() -> None:
    encode = SinePositionEncoding(16)
    alone = encode(torch.zeros(1, 3, 5, dtype=torch.bool))
    padding = torch.ones(1, 6, 9, dtype=torch.bool)
    padding[0, :3, :5] = False
    torch.testing.assert_close(encode(padding)[:, :, :3, :5], alone)
    row = (1 + 1 - 0.5) / 3 * 2 * math.pi
    torch.testing.assert_close(alone[0, 0, 1, 0], torch.tensor(math.sin(row)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone[0, 3, 1, 0], torch.tensor(math.cos(row / 10000 ** (2 / 8))), rtol=1e-4, atol=1e-5)


def test_proposals_are_boxes_around_tokens_that_fit() -> None:
    paddings = [torch.zeros(1, 4, 4, dtype=torch.bool), torch.zeros(1, 2, 2, dtype=torch.bool)]
    ratios = valid_ratios(paddings)
    centres = token_centres(((4, 4), (2, 2)), ratios)
    boxes, proposes = token_proposals(((4, 4), (2, 2)), centres, torch.zeros(1, 20, dtype=torch.bool))
    assert proposes.all()
    torch.testing.assert_close(boxes[0, 0].sigmoid(), torch.tensor([0.125, 0.125, 0.05, 0.05]))
    torch.testing.assert_close(boxes[0, 19].sigmoid(), torch.tensor([0.75, 0.75, 0.1, 0.1]))
    shapes = ((200, 200),)
    many = token_centres(shapes, valid_ratios([torch.zeros(1, 200, 200, dtype=torch.bool)]))
    _, proposes = token_proposals(shapes, many, torch.zeros(1, 40_000, dtype=torch.bool))
    assert not proposes.reshape(200, 200)[0].any(), "a centre less than a hundredth from the edge proposes nothing"
    assert proposes.reshape(200, 200)[2:-2, 2:-2].all()


def test_a_token_is_scored_beside_the_mean_of_all() -> None:
    network = ScoringNetwork(32)
    tokens = torch.randn(1, 6, 32)
    scores = network(tokens)
    assert scores.shape == (1, 6)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(network(tokens[:, order]), scores[:, order])
    other = tokens.clone()
    other[0, 5] = torch.randn(32)
    assert not torch.allclose(network(other)[0, :5], scores[0, :5])


@settings(max_examples=50, deadline=None)
@given(data=st.data(), share=st.floats(0.01, 1.0), tokens=st.integers(2, 40))
def test_the_best_tokens_are_selected(data, share, tokens) -> None:
    scores = torch.tensor(
        [data.draw(st.lists(st.integers(-50, 50), min_size=tokens, max_size=tokens, unique=True))] * 2
    )
    scores = scores.float()
    valid = [tokens, data.draw(st.integers(1, tokens))]
    padding = torch.stack([torch.arange(tokens) >= count for count in valid])
    allowed = torch.tensor([data.draw(st.lists(st.booleans(), min_size=tokens, max_size=tokens)) for _ in range(2)])
    indices, kept = select_tokens(scores, padding, share, allowed)
    assert indices.shape[1] == max(min(int(count * share) + 1, count) for count in valid)
    for picture, count in enumerate(valid):
        usable = [i for i in range(count) if allowed[picture, i]]
        best = sorted(usable, key=lambda i: -float(scores[picture, i]))[: min(int(count * share) + 1, count)]
        assert kept[picture] == len(best)
        assert indices[picture, : len(best)].tolist() == best
    if all(count == tokens for count in valid):
        same = select_tokens(scores, None, share, allowed)
        assert torch.equal(same.kept, kept)
