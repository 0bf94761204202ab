"""The joint losses of PVANet, and that a net which minimises them detects."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.learning import two_stage
from edgekit.learning.config import TrainConfig
from edgekit.learning.losses import Truth
from edgekit.learning.roi_targets import DEVIATIONS
from edgekit.learning.two_stage import normalised_regressor, two_stage_losses
from edgekit.models.pvanet import PVANet
from edgekit.models.pvanet_head import pool_rois

SIDE = 96
CONFIG = TrainConfig(rois=32, proposals=200, proposals_before_nms=1000)
COLOURS = ((-0.9, -0.9, 0.9), (0.9, 0.7, -0.9))


def scene() -> tuple[Tensor, Truth]:
    """Two pictures of coloured boxes on noise, [2, 3, 96, 96]; the second box of the first is padding."""
    boxes = torch.tensor([[[16.0, 20, 70, 66], [0, 0, 0, 0]], [[40, 8, 90, 60], [4, 56, 36, 92]]])
    truth = Truth(boxes=boxes, classes=torch.tensor([[0, 0], [1, 0]]), kind=torch.tensor([[1, 0], [1, 1]]))
    images = torch.from_numpy(np.random.default_rng(0).uniform(-0.2, 0.2, (2, 3, SIDE, SIDE)).astype(np.float32))
    for picture in range(2):
        for box, name, kind in zip(boxes[picture], truth.classes[picture], truth.kind[picture], strict=True):
            left, top, right, bottom = (int(edge) for edge in box)
            if kind == 1:
                images[picture, :, top:bottom, left:right] = torch.tensor(COLOURS[int(name)])[:, None, None]
    return images, truth


def losses(
    net: PVANet, images: Tensor, truth: Truth, mask: Tensor | None = None, *, seed: int = 0
) -> dict[str, Tensor]:
    chance = torch.rand(len(images), generator=torch.Generator().manual_seed(seed))
    return two_stage_losses(net, images, mask, truth=truth, chance=chance, config=CONFIG)


def tiny(variant: str = "lite", **options: object) -> PVANet:
    torch.manual_seed(0)
    return PVANet(variant, classes=2, width=0.125, **options).train()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "variant", ["lite", pytest.param("9.0", marks=pytest.mark.slow), pytest.param("9.1", marks=pytest.mark.slow)]
)
def test_a_net_that_learns_two_pictures_finds_their_boxes(variant: str) -> None:
    torch.manual_seed(0)
    net, (images, truth) = tiny(variant), scene()
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(parameters, lr=0.02, momentum=0.9)
    totals = []
    for step in range(150):
        if step == 110:
            optimiser.param_groups[0]["lr"] = 0.004
        total = torch.stack(list(losses(net, images, truth, seed=step).values())).sum()
        totals.append(float(total.detach()))
        optimiser.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 10)
        optimiser.step()
    assert np.mean(totals[-10:]) < 0.35 * totals[0]
    for picture, found in enumerate(net.eval().detect(images)):
        for box, name, kind in zip(truth.boxes[picture], truth.classes[picture], truth.kind[picture], strict=True):
            if kind == 1:
                best = int(found.probabilities[:, int(name) + 1].argmax())
                assert found.probabilities[best, int(name) + 1] > 0.5
                assert iou(found.boxes[best, int(name) + 1], box) > 0.5


def iou(first: Tensor, second: Tensor) -> float:
    shared = (torch.minimum(first[2:], second[2:]) - torch.maximum(first[:2], second[:2])).clamp_min(0).prod()
    return float(shared / ((first[2:] - first[:2]).prod() + (second[2:] - second[:2]).prod() - shared))


def test_losses_are_the_published_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    net, (images, truth) = tiny(), scene()
    net.head.shape = replace(net.head.shape, dropout=0.0)
    for_rpn, for_head = [], []
    for name, store in (("proposal_targets", for_rpn), ("roi_targets", for_head)):
        chosen = getattr(two_stage, name)
        monkeypatch.setattr(
            two_stage, name, lambda *a, chosen=chosen, store=store, **k: store.append(chosen(*a, **k)) or store[-1]
        )
    parts = losses(net, images, truth)
    with torch.no_grad():
        maps = net(images)
    anchors = len(net.variant.anchors)
    expected = dict.fromkeys(parts, 0.0)
    samples = sum(len(target.anchors) for target in for_rpn)
    for picture, target in enumerate(for_rpn):
        for number, anchor in enumerate(target.anchors.tolist()):
            cell, shape = divmod(anchor, anchors)
            row, column = divmod(cell, SIDE // 16)
            pair = maps.scores[picture, [shape, anchors + shape], row, column]
            label = int(number < len(target.deltas))
            expected["rpn_class"] -= float(pair.log_softmax(0)[label]) / samples
            if label:
                deltas = maps.deltas[picture, 4 * shape : 4 * shape + 4, row, column]
                expected["rpn_box"] += smooth_l1(deltas - torch.from_numpy(target.deltas[number]), 3) / samples
    rois = sum(len(target.rois) for target in for_head)
    pooled = torch.cat([pool_rois(maps.features[n], torch.from_numpy(t.rois)) for n, t in enumerate(for_head)])
    with torch.no_grad():
        logits, corrections = net.head(pooled)
    first = 0
    for target in for_head:
        for number, name in enumerate(target.classes.tolist()):
            expected["class"] -= float(logits[first + number].log_softmax(0)[name]) / rois
            if name:
                deltas = corrections[first + number, 4 * name : 4 * name + 4] / torch.tensor(DEVIATIONS)
                expected["box"] += smooth_l1(deltas - torch.from_numpy(target.deltas[number]), 1) / rois
        first += len(target.rois)
    assert min(expected.values()) > 0
    for name, value in expected.items():
        assert float(parts[name].detach()) == pytest.approx(value, rel=1e-4), name


def smooth_l1(error: Tensor, sigma: float) -> float:
    """``smooth_L1_loss_layer.cu`` of py-faster-rcnn."""
    size = error.abs()
    square, line = 0.5 * (sigma * error) ** 2, size - 0.5 / sigma**2
    return float(torch.where(size < 1 / sigma**2, square, line).sum())


def test_the_regressor_moves_as_the_normalised_one_of_the_published_recipe() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 12)
    deviations = torch.tensor(DEVIATIONS).repeat(3)
    published = copy.deepcopy(layer)
    with torch.no_grad():  # what py-faster-rcnn trains, and multiplies when it writes a file
        published.weight /= deviations[:, None]
        published.bias /= deviations
    steps = [torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01) for net in (layer, published)]
    for _ in range(3):
        inputs = torch.randn(5, 6)
        ours_in, theirs_in = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()
        ours = F.linear(ours_in, *normalised_regressor(layer))
        theirs = published(theirs_in)
        torch.testing.assert_close(ours, theirs)
        for optimiser, output in zip(steps, (ours, theirs), strict=True):
            optimiser.zero_grad()
            output.square().sum().backward()
            optimiser.step()
        torch.testing.assert_close(ours_in.grad, theirs_in.grad)
        torch.testing.assert_close(layer.weight, published.weight * deviations[:, None])
        torch.testing.assert_close(layer.bias, published.bias * deviations)


def test_what_is_drawn_depends_on_the_picture_alone() -> None:
    net, (images, truth) = tiny().eval(), scene()
    chance = torch.tensor([0.25, 0.75])
    both = two_stage_losses(net, images, None, truth=truth, chance=chance, config=CONFIG)
    swapped = Truth(boxes=truth.boxes.flip(0), classes=truth.classes.flip(0), kind=truth.kind.flip(0))
    other_way = two_stage_losses(net, images.flip(0), None, truth=swapped, chance=chance.flip(0), config=CONFIG)
    elsewhere = two_stage_losses(net, images, None, truth=truth, chance=chance + 0.1, config=CONFIG)
    for name, value in both.items():
        torch.testing.assert_close(value, other_way[name])
    assert both["class"] != elsewhere["class"]


def test_masked_cells_neither_learn_nor_propose(monkeypatch: pytest.MonkeyPatch) -> None:
    net, (images, truth) = tiny(), scene()
    shown: list[NDArray[np.float32]] = []
    pool = two_stage.pool_batch
    monkeypatch.setattr(two_stage, "pool_batch", lambda maps, rois: shown.extend(rois) or pool(maps, rois))
    mask = torch.zeros(2, 1, SIDE // 16, SIDE // 16)
    mask[:, :, 1:4, 1:4] = 1
    parts = losses(net, images, truth, mask)
    maps = net(images, mask)
    assert not maps.scores[:, :, 4:].any()
    sum(parts.values()).backward()  # type: ignore[union-attr]
    # Random proposals stay near their anchors, whose centres are those of active cells.
    centres = np.concatenate([(rois[:, :2] + rois[:, 2:]) / 2 for rois in shown])
    assert len(centres) > 4
    assert (centres < 72).all()


def test_a_picture_without_anything_to_look_at_teaches_nothing() -> None:
    net, (images, truth) = tiny("9.1"), scene()
    parts = losses(net, images, truth, torch.zeros(2, 1, SIDE // 16, SIDE // 16))
    total = torch.stack(list(parts.values())).sum()
    total.backward()
    assert float(total.detach()) == 0
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "compressed"), [("9.0", False), ("9.1", False), ("9.1", True), ("lite", True)])
def test_a_net_of_full_width_takes_a_step(variant: str, compressed: bool) -> None:
    torch.manual_seed(0)
    net, (images, truth) = PVANet(variant, classes=2, compressed=compressed).train(), scene()
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)
    totals = []
    for _ in range(2):
        total = torch.stack(list(losses(net, images, truth).values())).sum()
        totals.append(float(total.detach()))
        optimiser.zero_grad()
        total.backward()
        for name, parameter in net.named_parameters():
            assert not parameter.requires_grad or parameter.grad is not None, name
        optimiser.step()
    assert totals[1] < totals[0]
