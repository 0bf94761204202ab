"""One step of pretraining: what the online network predicts of the target, and how far off it is.

N pictures of this process, two views of each, S pixels a side; R pairs of boxes; D dimensions of a projection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekit.learning.distributed import sum_over_processes
from edgekit.pretraining.networks import Learner, distance, unit
from edgekit.pretraining.pictures import UNLABELLED
from edgekit.pretraining.samples import ViewBatch


@dataclass(frozen=True, kw_only=True)
class PretrainLosses:
    """The parts of a step's loss."""

    total: Tensor
    """What is minimised: this process's part of it. Over all processes it sums to the loss of the whole batch."""

    logged: Mapping[str, float]
    """Of the whole batch: ``loss``, ``probe_loss``, ``probe_accuracy``, ``std_online``, ``std_target``, ``pairs``."""


def step_losses(learner: Learner, batch: ViewBatch, *, boxes: bool) -> PretrainLosses | None:
    """Forward one batch; ``None`` if no picture of any process has a box, so that there is nothing to learn from.

    The loss is the mean, over all pairs, of what either view's prediction is off from the other's target.

    Args:
        learner: in training mode, the target too.
        batch: on the learner's device.
        boxes: compare the boxes of SCRL; otherwise whole views, as BYOL does.
    """
    rows = batch.boxes if boxes else None
    count = len(batch.boxes) // 2 if boxes else len(batch.labels)
    pairs = sum_over_processes(torch.tensor(float(count), device=batch.views.device))
    if pairs == 0:
        return None
    views = learner.normalise(batch.views)  # [2N, 3, S, S]: all first views, then all second ones
    projections, pooled = learner.online(views, rows)  # [2R, D], [2N, C]
    predictions = learner.predictor(projections)
    with torch.no_grad():
        targets, _ = learner.target(views, rows)
    predicted_first, predicted_second = predictions.chunk(2)
    target_first, target_second = targets.chunk(2)
    off = distance(predicted_first, target_second).sum() + distance(predicted_second, target_first).sum()
    total = off / pairs
    logged = {
        "loss": float(sum_over_processes(total)),
        "std_online": deviation(projections),
        "std_target": deviation(targets),
        "pairs": float(pairs),
    }
    if learner.probe is not None:
        probe_loss, accuracy = probe_losses(learner.probe(pooled.detach()), batch.labels.repeat(2))
        logged |= {"probe_loss": float(sum_over_processes(probe_loss)), "probe_accuracy": accuracy}
        total = total + probe_loss
    return PretrainLosses(total=total, logged=logged)


def deviation(projections: Tensor) -> float:
    """How far the directions of rows [R, D] are spread, over all processes: 1 everywhere, 0 collapsed to one.

    The root of the variance summed over dimensions: the standard deviation that SimSiam watches (arXiv 2011.10566,
    section 4.1) times the root of D.
    """
    directions = unit(projections.detach())
    count = sum_over_processes(directions.new_tensor(float(len(directions))))
    mean = sum_over_processes(directions.sum(dim=0)) / count
    return float((sum_over_processes((directions - mean).square().sum()) / count).sqrt())


def probe_losses(logits: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """Mean cross-entropy of the rows with a label (this process's part of it), and the share of them that is right.

    Args:
        logits: [R, classes].
        labels: [R] class numbers; ``UNLABELLED`` for none.
    """
    known = sum_over_processes((labels != UNLABELLED).sum()).clamp_min(1)
    loss = F.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="sum") / known
    right = sum_over_processes(((logits.argmax(dim=1) == labels) & (labels != UNLABELLED)).sum())
    return loss, float(right / known)
