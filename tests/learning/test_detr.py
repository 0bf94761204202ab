"""What a step asks of a DETR, and that one which is asked learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from edgekit.learning.config import TrainConfig, load_config
from edgekit.learning.dam import attention_map, most_valued
from edgekit.learning.detr import detr_step_losses, grouped, targets
from edgekit.learning.detr_losses import detr_losses, head_losses
from edgekit.learning.detr_matching import Target
from edgekit.learning.losses import Truth
from edgekit.learning.optimiser import build_optimiser, freeze, set_learning_rate
from edgekit.learning.step import DETR_LOSSES, loss_names
from edgekit.models.detr_output import DetrOutput, HeadOutput
from edgekit.models.masked_detector import MaskedDetector
from edgekit.models.masked_detr import detect_under_mask
from edgekit.models.registry import build
from edgekit.programs import find_folder

NAME, SIDE = "sparse-detr-mobilenetv2-omg", 64


def scene() -> tuple[Tensor, Truth]:
    """Two pictures of coloured boxes on noise, [2, 3, 64, 64]; the second box of the first is padding."""
    boxes = torch.tensor([[[8.0, 12, 40, 36], [0, 0, 0, 0]], [[30, 4, 60, 40], [4, 36, 24, 60]]])
    truth = Truth(boxes=boxes, classes=torch.tensor([[0, 0], [1, 0]]), kind=torch.tensor([[1, 0], [1, 1]]))
    images = torch.from_numpy(np.random.default_rng(0).uniform(-0.2, 0.2, (2, 3, SIDE, SIDE)).astype(np.float32))
    colours = torch.tensor([[-0.9, -0.9, 0.9], [0.9, 0.7, -0.9]])
    for picture, box in ((0, 0), (1, 0), (1, 1)):
        left, top, right, bottom = (int(edge) for edge in boxes[picture, box])
        images[picture, :, top:bottom, left:right] = colours[truth.classes[picture, box]][:, None, None]
    return images, truth


def tiny(share: float | None = None) -> MaskedDetector:
    torch.manual_seed(0)
    return build(NAME, ("box", "disc"), size=SIDE, token_share=share).train()


@pytest.mark.parametrize("share", [None, 1.0], ids=["sparse", "dense"])
def test_a_net_that_learns_two_pictures_loses_less_and_less(share: float | None) -> None:
    model, (images, truth) = tiny(share), scene()
    optimiser = torch.optim.AdamW(model.detr.parameters(), lr=5e-4)
    totals, correlations = [], []
    for _ in range(25):
        losses, watched = detr_step_losses(model.detr, images, None, truth=truth, spec=model.spec, answers=2)
        total = torch.stack(list(losses.values())).sum()
        totals.append(float(total.detach()))
        correlations += [float(value) for value in watched.values()]
        optimiser.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.detr.parameters(), 0.1)
        optimiser.step()
    assert np.mean(totals[-3:]) < 0.7 * totals[0]
    assert losses.keys() == {"class", "box", "giou", "encoder", *(() if share else ("mask_prediction",))}
    assert len(correlations) == (0 if share else 25)
    assert all(0 <= value <= 1 for value in correlations)
    assert set(losses) | set(watched) <= set(loss_names(model.spec)) == set(DETR_LOSSES)


def test_every_weight_of_a_sparse_net_learns() -> None:
    model, (images, truth) = tiny(), scene()
    mask = torch.ones(2, 1, 4, 4)
    mask[:, :, 0] = 0
    losses, _ = detr_step_losses(model.detr, images, mask, truth=truth, spec=model.spec, answers=1)
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in model.detr.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_a_picture_without_anything_to_look_at_teaches_no_detector() -> None:
    model, (images, truth) = tiny(), scene()
    losses, _ = detr_step_losses(model.detr, images, torch.zeros(2, 1, 4, 4), truth=truth, spec=model.spec, answers=4)
    assert not losses["box"].detach().any()
    assert not losses["giou"].detach().any()
    assert float(losses["class"].detach()) < 1e-3
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.detr.parameters() if p.grad is not None)


def test_targets_are_shares_of_the_input_and_what_a_mask_hides_is_not_asked_for() -> None:
    truth = Truth(
        boxes=torch.tensor([[[0.0, 0, 32, 64], [48, 16, 64, 32], [4, 4, 20, 20], [0, 0, 0.5, 9], [0, 0, 0, 0]]]),
        classes=torch.tensor([[2, 1, 0, 0, 0]]),
        kind=torch.tensor([[1, 1, -1, 1, 0]]),
    )
    (everything,) = targets(truth, None, height=64, width=128)
    assert everything.labels.tolist() == [2, 1]
    torch.testing.assert_close(everything.boxes[0], torch.tensor([0.125, 0.5, 0.25, 1.0]))
    assert everything.ignored is not None
    assert len(everything.ignored) == 1
    mask = torch.zeros(1, 1, 4, 8)
    mask[..., :2] = 1  # all of the first box, nothing of the second
    (seen,) = targets(truth, mask, height=64, width=128)
    assert seen.labels.tolist() == [2]
    assert seen.ignored is not None
    assert len(seen.ignored) == 2


def test_scores_do_not_learn_to_keep_what_a_mask_hides() -> None:
    model, (images, _) = tiny(), scene()
    mask = torch.zeros(2, 1, 4, 4)
    mask[..., :2, :2] = 1
    output = detect_under_mask(model.detr, images, mask, model.spec)
    assert output.attention is not None
    assert output.kept is not None
    # 16 + 4 + 1 + 1 of 85 tokens are active, fewer than three tenths of all.
    assert output.kept.tolist() == [22, 22]
    wanted = most_valued(attention_map(output.attention, output.shapes), output.kept, output.never_kept)
    assert torch.equal(wanted, ~output.never_kept)


def head() -> HeadOutput:
    boxes = torch.tensor([[[0.3, 0.3, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2], [0.31, 0.3, 0.2, 0.2]]])
    return HeadOutput(logits=torch.zeros(1, 3, 2), boxes=boxes)


def test_predictions_over_an_ignored_box_are_neither_right_nor_wrong() -> None:
    one = torch.ones(())
    target = Target(labels=torch.tensor([0]), boxes=torch.tensor([[0.3, 0.3, 0.2, 0.2]]))
    with_ignored = Target(labels=target.labels, boxes=target.boxes, ignored=torch.tensor([[0.7, 0.7, 0.2, 0.25]]))
    over = Target(labels=target.labels, boxes=target.boxes, ignored=target.boxes)
    focal_of_wrong = 2 * 0.75 * 0.25 * float(np.log(2)) * 2  # of two classes at .5
    loss = float(head_losses(head(), [target], objects=one)["loss_ce"])
    assert float(head_losses(head(), [with_ignored], objects=one)["loss_ce"]) == pytest.approx(loss - focal_of_wrong)
    # The third is over it; the first is too, but is what answers for the object.
    assert float(head_losses(head(), [over], objects=one)["loss_ce"]) == pytest.approx(loss - focal_of_wrong)


def test_many_tokens_can_answer_for_an_object() -> None:
    padding, shapes = torch.zeros(1, 3, dtype=torch.bool), ((1, 3),)
    output = DetrOutput((head(),), head(), (), None, None, None, padding, shapes)
    target = Target(labels=torch.tensor([0]), boxes=torch.tensor([[0.3, 0.3, 0.2, 0.2]]))
    once, twice = (detr_losses(output, [target], answers=answers) for answers in (1, 2))
    assert float(once["loss_bbox_enc"]) == pytest.approx(0, abs=1e-6)
    assert float(twice["loss_bbox_enc"]) == pytest.approx(5 * 0.01 / 2, abs=1e-6)
    assert float(twice["loss_bbox"]) == float(once["loss_bbox"])


def test_losses_are_added_up_by_what_they_are_of() -> None:
    names = ("loss_ce", "loss_ce_0", "loss_bbox_1", "loss_giou", "loss_ce_enc", "loss_giou_enc_2")
    sums = grouped({name: torch.tensor(float(2**index)) for index, name in enumerate(names)})
    assert {name: float(value) for name, value in sums.items()} == {"class": 3, "box": 4, "giou": 8, "encoder": 48}
    assert grouped({"loss_mask_prediction": torch.ones(())}).keys() == {"mask_prediction"}


PUBLISHED = find_folder("training") / "recipes" / "sparse-detr-r50-omg.toml"


def rates(model: MaskedDetector, config: TrainConfig) -> dict[str, tuple[float, float]]:
    """Name -> rate of the first step, and decay."""
    freeze(model, config)
    optimiser = build_optimiser(model, config, started=frozenset({"trunk"}))
    set_learning_rate(optimiser, config, step=0, total_steps=100, drops=0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = [
        (names[id(parameter)], (group["lr"], group["weight_decay"]))
        for group in optimiser.param_groups
        for parameter in group["params"]
    ]
    assert len(dict(found)) == len(found)  # those of two names are in one group
    return dict(found)


@pytest.mark.parametrize(("batch_size", "factor"), [(16, 1), (4, 0.5), (64, 2)])
def test_parameters_learn_as_published(batch_size: int, factor: float) -> None:
    config = load_config(PUBLISHED, {"batch_size": batch_size})
    found = rates(tiny(), config)
    slow = ("backbone.", "sampling_offsets.", "reference_points.")
    for name, (rate, decay) in found.items():
        expected = 2e-5 if any(part in name for part in slow) else 2e-4
        assert rate == pytest.approx(expected * factor), name
        assert decay == 1e-4, name
    assert not any(name.startswith("detector.backbone.0.body.stem") for name in found)
    assert (config.clip_norm, config.epochs, config.drop_epochs, config.schedule) == (0.1, 50, 40, "steps")


def test_rates_fall_in_steps() -> None:
    config = load_config(PUBLISHED, {"epochs": 100})
    optimiser = torch.optim.AdamW([{"params": [torch.nn.Parameter(torch.ones(1))], "share": 0.1}])
    for drops, rate in ((0, 2e-4), (1, 2e-5), (2, 2e-6)):
        assert set_learning_rate(optimiser, config, step=9, total_steps=10, drops=drops) == pytest.approx(rate)
        assert optimiser.param_groups[0]["lr"] == pytest.approx(0.1 * rate)


def test_the_dense_twin_is_an_option(tmp_path: Path) -> None:
    recipe = find_folder("training") / "recipes" / f"{NAME}.toml"
    assert load_config(recipe, {}).token_share == 0
    assert load_config(recipe, {"token_share": 1.0}).token_share == 1
