"""RoIAlign against sums that are written down naively: its samples one by one, and the integral of the surface."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from edgekit.pretraining.roi_align import roi_align


def bilinear(surface: np.ndarray, y: float, x: float) -> np.ndarray:
    """[C] of [C, H, W] at a place; nothing further than a cell outside, the border's value nearer than that."""
    height, width = surface.shape[1:]
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros(len(surface))
    y, x = min(max(y, 0.0), height - 1), min(max(x, 0.0), width - 1)
    top, left = math.floor(y), math.floor(x)
    down, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    upper = surface[:, top, left] * (1 - dx) + surface[:, top, right] * dx
    lower = surface[:, down, left] * (1 - dx) + surface[:, down, right] * dx
    return upper * (1 - dy) + lower * dy


def sample_by_sample(
    features: np.ndarray, boxes: np.ndarray, *, scale: float, bins: int, samples: int, aligned: bool
) -> np.ndarray:
    """Four loops, as Mask R-CNN describes it."""
    output = np.zeros((len(boxes), features.shape[1], bins, bins))
    for index, (picture, *box) in enumerate(boxes):
        left, top, right, bottom = (value * scale - 0.5 * aligned for value in box)
        wide, high = right - left, bottom - top
        if not aligned:
            wide, high = max(wide, 1.0), max(high, 1.0)
        rows, columns = samples or math.ceil(high / bins), samples or math.ceil(wide / bins)
        for row in range(bins):
            for column in range(bins):
                total = np.zeros(features.shape[1])
                for i in range(rows):
                    for j in range(columns):
                        y = top + (row + (i + 0.5) / rows) * high / bins
                        x = left + (column + (j + 0.5) / columns) * wide / bins
                        total += bilinear(features[int(picture)], y, x)
                output[index, :, row, column] = total / (rows * columns)
    return output


def integral(surface: np.ndarray, left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """[C]: the exact mean of the bilinear surface over a box.

    Between grid lines it is linear along each axis, so that the middle of a piece is its mean.
    """

    def pieces(low: float, high: float) -> list[tuple[float, float]]:
        cuts = [low, *range(math.floor(low) + 1, math.ceil(high)), high]
        return list(itertools.pairwise(cuts))

    total = np.zeros(len(surface))
    for y0, y1 in pieces(top, bottom):
        for x0, x1 in pieces(left, right):
            total += bilinear(surface, (y0 + y1) / 2, (x0 + x1) / 2) * (y1 - y0) * (x1 - x0)
    return total / ((right - left) * (bottom - top))


def random_boxes(rng: np.random.Generator, count: int, *, pictures: int, side: float) -> np.ndarray:
    """[count, 5], some of them reaching out of the map or less than a cell wide."""
    corners = np.sort(rng.uniform(-40, side + 40, (count, 2, 2)), axis=1).reshape(count, 4)
    return np.concatenate([rng.integers(0, pictures, (count, 1)), corners], axis=1)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize(("bins", "samples"), [(1, 0), (1, 2), (3, 0), (2, 3)])
def test_it_equals_its_samples_one_by_one(bins: int, samples: int, aligned: bool) -> None:
    rng = np.random.default_rng(bins + 10 * samples)
    features = rng.normal(size=(3, 4, 7, 9)).astype(np.float32)
    boxes = random_boxes(rng, 40, pictures=3, side=224).astype(np.float32)
    wanted = sample_by_sample(
        features.astype(float), boxes.astype(float), scale=1 / 32, bins=bins, samples=samples, aligned=aligned
    )
    got = roi_align(
        torch.from_numpy(features), torch.from_numpy(boxes), scale=1 / 32, bins=bins, samples=samples, aligned=aligned
    )
    assert got.shape == (40, 4, bins, bins)
    np.testing.assert_allclose(got.numpy(), wanted, atol=1e-5)


def test_boxes_on_whole_cells_are_integrated_exactly() -> None:
    rng = np.random.default_rng(4)
    surface = rng.normal(size=(5, 7, 7)).astype(np.float32)
    boxes = [
        (left, top, right, bottom)
        for left in range(6) for right in range(left + 1, 7) for top in range(6) for bottom in range(top + 1, 7)
    ]  # fmt: skip
    rows = torch.tensor([[0, *(32 * edge for edge in box)] for box in boxes], dtype=torch.float32)
    got = roi_align(torch.from_numpy(surface)[None], rows, scale=1 / 32)[:, :, 0, 0].numpy()
    wanted = np.stack([integral(surface.astype(float), *box) for box in boxes])
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_many_samples_approach_the_integral_of_any_box() -> None:
    rng = np.random.default_rng(6)
    surface = rng.normal(size=(5, 7, 7)).astype(np.float32)
    low = rng.uniform(0, 3, (20, 2))
    boxes = np.concatenate([low, low + rng.uniform(1, 3, (20, 2))], axis=1)
    rows = torch.from_numpy(np.insert(boxes * 32, 0, 0, axis=1).astype(np.float32))
    wanted = np.stack([integral(surface.astype(float), *box) for box in boxes])

    def error(samples: int) -> float:
        got = roi_align(torch.from_numpy(surface)[None], rows, scale=1 / 32, samples=samples)[:, :, 0, 0].numpy()
        return float(np.abs(got - wanted).max())

    assert error(1000) < 1e-5
    assert error(4) > 1e-3


def test_gradients_are_those_of_the_weights() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 3, 5, 4, dtype=torch.double, requires_grad=True)
    boxes = torch.tensor([[1, 3.0, 10, 100, 90], [0, -20, 0, 140, 60], [1, 50, 50, 60, 60], [1, 0, 0, 128, 160]])
    assert torch.autograd.gradcheck(lambda maps: roi_align(maps, boxes, scale=1 / 32, bins=2), (features,))


def test_no_boxes_give_no_rows_and_no_gradient() -> None:
    features = torch.randn(2, 3, 5, 4, requires_grad=True)
    rows = roi_align(features, torch.zeros(0, 5), scale=1 / 32)
    assert rows.shape == (0, 3, 1, 1)
    rows.sum().backward()
    assert features.grad is not None
    assert features.grad.abs().max() == 0


def test_the_order_of_boxes_is_kept() -> None:
    features = torch.arange(4.0)[:, None, None, None].expand(4, 1, 3, 3)
    boxes = torch.tensor([[index, 0.0, 0, 64, 64] for index in (2, 0, 3, 0, 1, 2)])
    assert roi_align(features, boxes, scale=1 / 32).flatten().tolist() == [2, 0, 3, 0, 1, 2]


def test_mixed_precision_does_not_move_boxes() -> None:
    torch.manual_seed(2)
    features = torch.randn(2, 4, 7, 7).bfloat16()
    boxes = torch.tensor([[0, 3.3, 41.7, 100.1, 219.9], [1, 60.5, 10.2, 199.3, 64.8]])
    wanted = roi_align(features.float(), boxes, scale=1 / 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = roi_align(features, boxes, scale=1 / 32)
    assert got.dtype == torch.float32
    assert torch.equal(got, wanted)
