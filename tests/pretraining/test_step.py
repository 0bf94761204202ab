"""The loss and all its gradients against a second way of computing them, in double precision, on a seeded batch."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from edgekit.models.backbone import EVERYWHERE
from edgekit.pretraining.networks import Head, Learner
from edgekit.pretraining.samples import ViewBatch
from edgekit.pretraining.step import deviation, probe_losses, step_losses

SIDE, PICTURES = 96, 3


@pytest.fixture
def learner() -> Learner:
    torch.manual_seed(3)
    learner = Learner("pvanet-lite", width=0.25, hidden=16, outputs=8, classes=4).double().train()
    learner.normalise = lambda views: (views.double() - 128) / 128  # type: ignore[method-assign]
    return learner


@pytest.fixture(scope="module")
def batch() -> ViewBatch:
    rng = np.random.default_rng(9)
    low = rng.uniform(0, SIDE - 32, (2, 5, 2))
    corners = np.concatenate([low, low + 32 + rng.random((2, 5, 2)) * (SIDE - 32 - low)], axis=2)
    pictures = np.array([0, 0, 0, 2, 2])  # the second picture has no box
    rows = [np.insert(corners[view], 0, pictures + view * PICTURES, axis=1) for view in range(2)]
    return ViewBatch(
        views=torch.from_numpy(rng.integers(0, 256, (2 * PICTURES, 3, SIDE, SIDE)).astype(np.uint8)),
        boxes=torch.from_numpy(np.concatenate(rows)),
        labels=torch.tensor([2, -1, 0]),
    )


def head(weights: Head, rows: list[Tensor]) -> list[Tensor]:
    """Linear, batch norm with the batch's statistics, ReLU, linear: written out."""
    first, norm, _, last = weights.net
    hidden = torch.stack([first.weight @ row + first.bias for row in rows])
    mean = hidden.mean(0)
    variance = ((hidden - mean) ** 2).mean(0)
    hidden = (hidden - mean) / (variance + 1e-5) ** 0.5 * norm.weight + norm.bias
    return [last.weight @ torch.where(row > 0, row, torch.zeros_like(row)) for row in hidden]


def pooled(features: Tensor, box: Tensor) -> Tensor:
    """The mean of bilinear samples of [C, h, w], one sample after another, at stride 32."""
    left, top, right, bottom = (float(edge) / 32 for edge in box)
    wide, high = max(right - left, 1.0), max(bottom - top, 1.0)
    total, count = 0.0, 0
    for i in range(int(np.ceil(high))):
        for j in range(int(np.ceil(wide))):
            y = min(max(top + (i + 0.5) * high / np.ceil(high), 0.0), features.shape[1] - 1.0)
            x = min(max(left + (j + 0.5) * wide / np.ceil(wide), 0.0), features.shape[2] - 1.0)
            for row, weight_y in ((int(y), 1 - y % 1), (int(y) + 1, y % 1)):
                for column, weight_x in ((int(x), 1 - x % 1), (int(x) + 1, x % 1)):
                    if weight_y * weight_x:
                        total = total + features[:, row, column] * (weight_y * weight_x)
            count += 1
    return total / count


def reference(learner: Learner, batch: ViewBatch, *, boxes: bool) -> Tensor:
    """Pair by pair: minus twice the cosine, plus two, both ways round."""
    views = (batch.views.double() - 128) / 128
    vectors = []
    for branch in (learner.online, learner.target):
        maps = branch.encoder(views, EVERYWHERE)[-1]
        if boxes:
            rows = [pooled(maps[int(row[0])], row[1:]) for row in batch.boxes]
        else:
            rows = [sum(one[:, y, x] for y in range(3) for x in range(3)) / 9 for one in maps]
        vectors.append(head(branch.projector, rows))
    predictions, targets = head(learner.predictor, vectors[0]), [row.detach() for row in vectors[1]]
    half = len(predictions) // 2
    total = torch.zeros((), dtype=torch.double)
    for index in range(half):
        for q, z in ((predictions[index], targets[index + half]), (predictions[index + half], targets[index])):
            total = total + 2 - 2 * (q @ z) / ((q @ q) ** 0.5 * (z @ z) ** 0.5)
    return total / half


@pytest.mark.parametrize("boxes", [True, False], ids=["scrl", "byol"])
def test_loss_and_gradients_equal_the_reference(learner: Learner, batch: ViewBatch, boxes: bool) -> None:
    double = copy.deepcopy(learner)
    losses = step_losses(learner, batch, boxes=boxes)
    assert losses is not None
    losses.total.backward()
    wanted = reference(double, batch, boxes=boxes)
    wanted.backward()
    assert losses.logged["loss"] == pytest.approx(float(wanted.detach()), abs=1e-10)
    assert 0.5 < losses.logged["loss"] < 7
    compared = 0
    for part in ("online", "predictor"):
        theirs = dict(getattr(double, part).named_parameters())
        for name, parameter in getattr(learner, part).named_parameters():
            # A bias before a batch norm has no effect, and rounding for a gradient.
            torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-7, atol=1e-11, msg=name)
            compared += int(parameter.grad.abs().max() > 1e-9)  # type: ignore[union-attr]
    assert compared > 50
    assert all(parameter.grad is None for parameter in learner.target.parameters())
    # The probe learns beside them: its gradient is there, and the comparison above shows that it teaches nothing.
    assert learner.probe is not None
    assert learner.probe.weight.grad is not None


def test_the_targets_norms_measure_their_own_batches(learner: Learner, batch: ViewBatch) -> None:
    before = {name: value.clone() for name, value in learner.target.named_buffers() if "running_mean" in name}
    step_losses(learner, batch, boxes=True)
    after = dict(learner.target.named_buffers())
    assert before
    assert all(not torch.equal(after[name], value) for name, value in before.items())


def test_a_batch_without_boxes_teaches_nothing(learner: Learner, batch: ViewBatch) -> None:
    empty = ViewBatch(views=batch.views, boxes=batch.boxes[:0], labels=batch.labels)
    assert step_losses(learner, empty, boxes=True) is None
    assert step_losses(learner, empty, boxes=False) is not None


def test_the_probe_learns_from_labelled_rows_only() -> None:
    logits = torch.tensor([[2.0, 0, 0], [0, 1, 0], [0, 0, 5], [3, 0, 0]], requires_grad=True)
    loss, accuracy = probe_losses(logits, torch.tensor([0, -1, 1, 0]))
    log = torch.log_softmax(logits.detach().double(), dim=1)
    assert float(loss.detach()) == pytest.approx(float(-(log[0, 0] + log[2, 1] + log[3, 0]) / 3), rel=1e-6)
    assert accuracy == pytest.approx(2 / 3)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[1].tolist() == [0, 0, 0]
    none, accuracy = probe_losses(logits, torch.tensor([-1, -1, -1, -1]))
    assert (float(none.detach()), accuracy) == (0.0, 0.0)


def test_the_spread_of_embeddings_tells_collapse() -> None:
    torch.manual_seed(0)
    assert deviation(torch.randn(4000, 32)) == pytest.approx(1.0, abs=0.01)
    one = torch.randn(1, 32)
    assert deviation(one * torch.rand(4000, 1)) == pytest.approx(0.0, abs=1e-3)
    assert deviation(torch.cat([one, -one]).repeat(10, 1)) == pytest.approx(1.0, abs=1e-5)
    # Two directions at a right angle: each is off their mean by 1 / sqrt(2).
    assert deviation(torch.eye(2).repeat(5, 1)) == pytest.approx(0.5**0.5, abs=1e-6)
