"""All losses of a sparse model, held against loops that know nothing of the code; one of the pictures is empty."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

from edgekit.learning.detr_losses import LossWeights, detr_losses, loss_names
from edgekit.learning.detr_matching import Target
from edgekit.models.detr_output import DecoderAttention, DetrOutput, HeadOutput

SHAPES = ((3, 4), (2, 2), (1, 2), (1, 1))
TOKENS, QUERIES, CLASSES = 19, 6, 3
KEPT = (4, 6)

NAMES = [
    *("loss_ce", "loss_bbox", "loss_giou"),
    *(f"loss_{part}_{layer}" for layer in range(5) for part in ("ce", "bbox", "giou")),
    *("loss_ce_enc", "loss_bbox_enc", "loss_giou_enc"),
    *(f"loss_{part}_enc_{layer}" for layer in range(5) for part in ("ce", "bbox", "giou")),
    "loss_mask_prediction",
]


def random_output(seed: int) -> DetrOutput:
    """Six decoder layers, five auxiliary heads of the encoder, two pictures, the second smaller than the first."""
    generator = torch.Generator().manual_seed(seed)

    def head(count: int) -> HeadOutput:
        logits = torch.randn(2, count, CLASSES, generator=generator)
        boxes = torch.rand(2, count, 4, generator=generator) * 0.6 + 0.2
        return HeadOutput(logits=logits.requires_grad_(), boxes=boxes.requires_grad_())

    padding = torch.zeros(2, TOKENS, dtype=torch.bool)
    padding[1, [3, 7, 11, 13, 15, 17]] = True  # the last column of each level
    shape = (2, 6, QUERIES, 2, len(SHAPES), 2)
    weights = torch.rand(shape, generator=generator).flatten(-2).softmax(-1).view(shape)
    return DetrOutput(
        decoder=tuple(head(QUERIES) for _ in range(6)),
        proposals=head(TOKENS),
        encoder=tuple(head(max(KEPT)) for _ in range(5)),
        scores=torch.randn(2, TOKENS, generator=generator).requires_grad_(),
        attention=DecoderAttention(locations=torch.rand(*shape, 2, generator=generator) * 1.2 - 0.1, weights=weights),
        kept=torch.tensor(KEPT),
        padding=padding,
        shapes=SHAPES,
    )


def some_targets() -> list[Target]:
    generator = torch.Generator().manual_seed(9)
    full = Target(labels=torch.tensor([2, 0, 2]), boxes=torch.rand(3, 4, generator=generator) * 0.4 + 0.3)
    return [full, Target(labels=torch.zeros(0, dtype=torch.int64), boxes=torch.zeros(0, 4))]


Plain = list[list[float]]


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def slow_giou(first: list[float], second: list[float]) -> float:
    sides, hulls = [], []
    for axis in (0, 1):
        low = [box[axis] - box[axis + 2] / 2 for box in (first, second)]
        high = [box[axis] + box[axis + 2] / 2 for box in (first, second)]
        sides.append(max(0.0, min(high) - max(low)))
        hulls.append(max(high) - min(low))
    overlap = sides[0] * sides[1]
    union = first[2] * first[3] + second[2] * second[3] - overlap
    return overlap / union - 1 + union / (hulls[0] * hulls[1])


def slow_focal(logit: float, wanted: bool) -> float:
    score = sigmoid(logit)
    return -0.25 * (1 - score) ** 2 * math.log(score) if wanted else -0.75 * score**2 * math.log(1 - score)


def slow_head(head: HeadOutput, targets: list[Target]) -> list[float]:
    """The three losses of a head, weighted."""
    classification = distance = overlap = 0.0
    for picture, target in enumerate(targets):
        logits: Plain = head.logits[picture].tolist()
        boxes: Plain = head.boxes[picture].tolist()
        labels, wanted = target.labels.tolist(), target.boxes.tolist()

        def cost(
            row: int,
            column: int,
            logits: Plain = logits,
            boxes: Plain = boxes,
            labels: list[int] = labels,
            wanted: Plain = wanted,
        ) -> float:
            logit, box, truth = logits[row][labels[column]], boxes[row], wanted[column]
            return (
                2 * (slow_focal(logit, True) - slow_focal(logit, False))
                + 5 * sum(abs(a - b) for a, b in zip(box, truth, strict=True))
                - 2 * slow_giou(box, truth)
            )

        costs = [[cost(row, column) for column in range(len(labels))] for row in range(len(boxes))]
        best = min(
            itertools.permutations(range(len(boxes)), len(labels)),
            key=lambda rows, costs=costs: sum(costs[row][column] for column, row in enumerate(rows)),
        )
        answers = {(row, labels[column]) for column, row in enumerate(best)}
        for row, of_row in enumerate(logits):
            for name, logit in enumerate(of_row):
                classification += slow_focal(logit, (row, name) in answers)
        for column, row in enumerate(best):
            distance += sum(abs(a - b) for a, b in zip(boxes[row], wanted[column], strict=True))
            overlap += 1 - slow_giou(boxes[row], wanted[column])
    objects = max(1, sum(len(target.labels) for target in targets))
    return [2 * classification / objects, 5 * distance / objects, 2 * overlap / objects]


def slow_mask_prediction(output: DetrOutput) -> float:
    assert output.attention is not None
    assert output.scores is not None
    total = 0.0
    for picture in range(2):
        received = [0.0] * TOKENS
        start = 0
        for level, (rows, columns) in enumerate(SHAPES):
            locations = output.attention.locations[picture, :, :, :, level].reshape(-1, 2).tolist()
            weights = output.attention.weights[picture, :, :, :, level].flatten().tolist()
            for (x, y), weight in zip(locations, weights, strict=True):
                for row, column in itertools.product(range(rows), range(columns)):
                    share = max(0, 1 - abs(x * columns - 0.5 - column)) * max(0, 1 - abs(y * rows - 0.5 - row))
                    received[start + row * columns + column] += weight * share
            start += rows * columns
        valid = [token for token in range(TOKENS) if not output.padding[picture, token]]
        best = sorted(valid, key=lambda token, received=received: -received[token])[: KEPT[picture]]
        for token, score in enumerate(output.scores[picture].tolist()):
            total -= math.log(sigmoid(score) if token in best else 1 - sigmoid(score))
    return total / (2 * TOKENS)


def test_names() -> None:
    assert list(loss_names(decoder_layers=6, encoder_heads=5, two_stage=True, sparse=True)) == NAMES
    assert list(loss_names(decoder_layers=6, encoder_heads=0, two_stage=False, sparse=False)) == NAMES[:18]


@pytest.mark.parametrize("seed", [1, 2])
def test_all_37_losses_are_those_of_loops(seed: int) -> None:
    output, targets = random_output(seed), some_targets()
    found = detr_losses(output, targets)
    assert list(found) == NAMES
    assert len(found) == 37
    assert output.proposals is not None
    heads = [output.decoder[-1], *output.decoder[:-1], output.proposals, *output.encoder]
    wanted = [loss for head in heads for loss in slow_head(head, targets)] + [slow_mask_prediction(output)]
    for name, value in zip(NAMES, wanted, strict=True):
        assert float(found[name].detach()) == pytest.approx(value, rel=2e-5), name


def test_every_head_and_the_scores_learn() -> None:
    output = random_output(3)
    torch.stack(list(detr_losses(output, some_targets()).values())).sum().backward()  # type: ignore[no-untyped-call]
    assert output.proposals is not None
    assert output.scores is not None
    for head in (*output.decoder, output.proposals, *output.encoder):
        for value in (head.logits, head.boxes):
            assert value.grad is not None
            assert torch.isfinite(value.grad).all()
            assert value.grad[0].any()
        assert head.boxes.grad is not None
        assert not head.boxes.grad[1].any()  # the empty picture has no boxes
    assert output.scores.grad is not None
    assert output.scores.grad.all()


def test_a_batch_without_objects_teaches_silence() -> None:
    output, empty = random_output(4), some_targets()[1]
    found = detr_losses(output, [empty, empty])
    assert list(found) == NAMES
    for name, loss in found.items():
        assert torch.isfinite(loss), name
        assert (float(loss.detach()) == 0) == name.startswith(("loss_bbox", "loss_giou")), name
    assert float(found["loss_ce"].detach()) == pytest.approx(slow_head(output.decoder[-1], [empty, empty])[0], rel=2e-5)
    torch.stack(list(found.values())).sum().backward()  # type: ignore[no-untyped-call]


def test_weights_are_factors() -> None:
    output, targets = random_output(5), some_targets()
    published = detr_losses(output, targets)
    plain = detr_losses(output, targets, weights=LossWeights(classification=1, box=1, giou=1, mask_prediction=3))
    factors = {"ce": 2, "bbox": 5, "giou": 2, "mask": 1 / 3}
    for name in NAMES:
        torch.testing.assert_close(published[name], factors[name.split("_")[1]] * plain[name])


def test_what_a_dense_model_lacks_has_no_losses() -> None:
    output = replace(random_output(6), proposals=None, encoder=(), scores=None, attention=None, kept=None)
    assert list(detr_losses(output, some_targets())) == NAMES[:18]


def test_scores_need_attention_to_learn_from() -> None:
    with pytest.raises(ValueError, match="attention"):
        detr_losses(replace(random_output(7), attention=None), some_targets())


def test_what_losses_are_divided_by_is_summed_over_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that see the same: each has half of every loss, and gradients are summed."""
    output, targets = random_output(8), some_targets()
    alone = detr_losses(output, targets)
    for module in ("detr_losses", "dam"):
        monkeypatch.setattr(f"edgekit.learning.{module}.sum_over_processes", lambda value: 2 * value)
    for name, loss in detr_losses(output, targets).items():
        torch.testing.assert_close(2 * loss, alone[name])


def test_nothing_becomes_half_precision() -> None:
    output = random_output(9)
    half = replace(
        output,
        decoder=tuple(
            HeadOutput(logits=head.logits.bfloat16(), boxes=head.boxes.bfloat16()) for head in output.decoder
        ),
    )
    assert {loss.dtype for loss in detr_losses(half, some_targets()).values()} == {torch.float32}
