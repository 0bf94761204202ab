"""Which prediction of a DETR answers for which object: the cheapest one-to-one assignment (arXiv 2005.12872, 3.1).

The cost of a pair has the parts of its loss: class (focal, arXiv 1708.02002, as Deformable DETR has it, arXiv
2010.04159), L1 and generalised IoU of the boxes.

N predictions of a picture, n objects in it, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekit.errors import CheckpointError, DataError, MissingDependencyError
from edgekit.learning.losses import giou
from edgekit.models.detr_output import HeadOutput

FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0

LEAST_AREA = 1e-12
"""For :func:`edgekit.learning.losses.giou` of boxes in shares of the picture: a millionth of its sides."""


@dataclass(frozen=True)
class Target:
    """The objects of one picture, of which there may be none."""

    labels: Tensor
    """[n] int64, 0..C - 1."""

    boxes: Tensor
    """[n, 4] centre x, centre y, width, height, 0..1 of the picture."""

    ignored: Tensor | None = None
    """[m, 4] as ``boxes``: what is found here is neither right nor wrong; ``None`` is nothing."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What the parts of a pair's cost weigh; the defaults are published."""

    classification: float = 2.0
    box: float = 5.0
    giou: float = 2.0


PUBLISHED_COSTS = Costs()


@dataclass(frozen=True)
class Pairs:
    """The matched pairs of a batch, M in all; each object of it is in exactly one while there are predictions left."""

    pictures: Tensor
    """[M] int64, which picture of the batch."""

    predictions: Tensor
    """[M] int64, which of its predictions."""

    labels: Tensor
    """[M] int64, the object's."""

    boxes: Tensor
    """[M, 4] the object's, as :class:`Target` has it."""


@torch.no_grad()
def match(head: HeadOutput, targets: Sequence[Target], *, costs: Costs = PUBLISHED_COSTS) -> Pairs:
    """Assign the objects of each picture to predictions.

    Args:
        head: of B pictures, N predictions each.
        targets: B, on the device of ``head``.
        costs: of a pair.

    Returns:
        Pairs in the order of pictures, and in each of predictions; without objects there are none.

    Raises:
        MissingDependencyError: scipy is not installed.
        CheckpointError: a prediction is not finite.
        DataError: a box of an object is not finite.
    """
    assign = _linear_sum_assignment()
    # All of them before the first is awaited, so that an accelerator works on.
    tables = [
        pair_costs(logits, boxes, target, costs=costs)
        for logits, boxes, target in zip(head.logits, head.boxes, targets, strict=True)
    ]
    pictures, predictions, labels, boxes = [], [], [], []
    for picture, (table, target) in enumerate(zip(tables, targets, strict=True)):
        values = table.cpu()
        if not torch.isfinite(values).all():
            raise _not_finite(target)
        rows, columns = (torch.from_numpy(index).to(head.logits.device) for index in assign(values.numpy()))
        pictures.append(torch.full_like(rows, picture))
        predictions.append(rows)
        labels.append(target.labels[columns])
        boxes.append(target.boxes[columns])
    return Pairs(
        pictures=torch.cat(pictures),
        predictions=torch.cat(predictions),
        labels=torch.cat(labels),
        boxes=torch.cat(boxes).float(),
    )


def pair_costs(logits: Tensor, boxes: Tensor, target: Target, *, costs: Costs = PUBLISHED_COSTS) -> Tensor:
    """[N, n] float32: what it costs that a prediction answers for an object of the same picture.

    The class's part is the focal loss of the object's class if it is right, less that if it is wrong: all that the
    choice changes in the sum over predictions.

    Args:
        logits: [N, C].
        boxes: [N, 4] as :class:`Target` has them.
        target: the picture's objects.
        costs: of a pair.
    """
    wanted = target.boxes.float()
    chosen = logits[:, target.labels].float()
    classification = focal(chosen, torch.ones_like(chosen)) - focal(chosen, torch.zeros_like(chosen))
    overlap = giou(corners(boxes.float())[:, None], corners(wanted)[None], least_area=LEAST_AREA)
    distance = torch.cdist(boxes.float(), wanted, p=1)
    return costs.classification * classification + costs.box * distance - costs.giou * overlap


def focal(logits: Tensor, wanted: Tensor) -> Tensor:
    """Focal loss of each logit, in the shape of ``logits``; ``wanted`` is 0 or 1."""
    scores = torch.sigmoid(logits)
    miss = torch.where(wanted > 0, 1 - scores, scores)
    balance = torch.where(wanted > 0, FOCAL_ALPHA, 1 - FOCAL_ALPHA)
    return balance * miss.pow(FOCAL_GAMMA) * F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")


def corners(boxes: Tensor) -> Tensor:
    """[..., 4] centre x, centre y, width, height -> left, top, right, bottom."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def _not_finite(target: Target) -> DataError | CheckpointError:
    if not torch.isfinite(target.boxes).all():
        return DataError(f"the boxes of a picture's objects are not finite: {target.boxes.tolist()}")
    return CheckpointError(
        "training diverged: the detector's scores or boxes are not finite, so none can be matched to objects.\n"
        "Go on from the last save with a lower rate: --resume --learning-rate RATE"
    )


def _linear_sum_assignment() -> Any:
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise MissingDependencyError("scipy", "train", "match a DETR's predictions to objects") from error
    return linear_sum_assignment
