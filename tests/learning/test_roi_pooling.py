"""RoI pooling with gradients, against the loop over RoIs in PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekit.backends.native import require
from edgekit.learning.roi_pooling import pool_batch
from edgekit.models.pvanet_head import pool_rois


@pytest.mark.parametrize("seed", range(6))
def test_values_and_gradients_are_those_of_pytorch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    batch, channels, rows, columns = 3, int(rng.integers(1, 70)), int(rng.integers(1, 14)), int(rng.integers(1, 14))
    # Whole numbers, of which no two in a channel are equal: which of equals wins is nobody's business.
    values = np.stack([rng.permutation(rows * columns) for _ in range(batch * channels)])
    first, second = rng.uniform(-40, 16 * max(rows, columns) + 40, (2, 3, 20, 2))
    rois = [np.concatenate([np.minimum(a, b), np.maximum(a, b)], axis=1) for a, b in zip(first, second, strict=True)]
    rois = [boxes.astype(np.float32)[: rng.integers(0, 20)] for boxes in rois]
    base = torch.from_numpy(values.reshape(batch, channels, rows, columns).astype(np.float32))
    ours, theirs = base.clone().requires_grad_(), base.clone().requires_grad_()
    pooled = pool_batch(ours, rois)
    expected = torch.cat([pool_rois(one, torch.from_numpy(boxes)) for one, boxes in zip(theirs, rois, strict=True)])
    assert torch.equal(pooled, expected)
    weights = torch.from_numpy(rng.normal(size=pooled.shape).astype(np.float32))
    pooled.backward(weights)
    expected.backward(weights)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-5)


def test_one_of_equal_maxima_gets_all() -> None:
    features = torch.ones(1, 1, 12, 12, requires_grad=True)
    pool_batch(features, [np.array([[0, 0, 191, 191]], np.float32)]).sum().backward()
    assert features.grad is not None
    assert features.grad.sum() == 36
    assert sorted(features.grad.flatten().tolist()) == [0] * 108 + [1] * 36


def test_gradients_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected gradients \[R, C \* 36\]"):
        require().pool_rois_gradient(
            np.zeros((4, 2), np.float32),
            grid=(2, 2),
            rois=np.zeros((3, 4), np.float32),
            gradient=np.zeros((3, 71), np.float32),
        )
