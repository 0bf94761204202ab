"""Opinions: what a teacher would call the true boxes, and how sure it is.

A few thousand boxes can be learnt by heart: without a teacher's opinion the shipped detector scored AP50 .80 on its
training pictures and .59 on others. A teacher that has never seen these pictures is unsure where a newcomer would be,
and takes a sofa for a chair now and then; asking for its scores instead of a plain 1 passes on what can be known of an
object from its looks (knowledge distillation, arXiv 1503.02531, section 2).

B batch, N boxes (padded), P the teacher's places, C classes of the student.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekit.learning.assignment import pairwise_iou
from edgekit.learning.losses import Truth
from edgekit.models.yolox import VOC_NAMES, View

SAME_BOX = 0.5
"""A prediction of the teacher is about a true box when they overlap at least this much."""

FAINTEST = 0.05
"""Opinions below it say nothing."""


def columns_of(classes: Sequence[str], known: Sequence[str]) -> list[int | None]:
    """For each of the student's ``classes`` its place among those the teacher knows, or ``None``."""
    places = {name: index for index, name in enumerate(known)}
    return [places.get(VOC_NAMES.get(name, name)) for name in classes]


@torch.no_grad()
def class_opinions(view: View, truth: Truth, columns: Sequence[int | None], *, weight: float) -> Tensor:
    """[B, N, C] in 0..1: the class scores to ask for at each box, 1 for its own class where the teacher has no say.

    Args:
        view: the teacher's, of the same pictures.
        truth: their boxes.
        columns: from :func:`columns_of`.
        weight: 0..1 of the teacher's opinion; the rest is the label's.
    """
    labels = F.one_hot(truth.classes.clamp_min(0), len(columns)).float()
    heard = torch.tensor([column is not None for column in columns], device=labels.device)
    scores = view.scores[..., [column or 0 for column in columns]].float() * heard  # [B, P, C]
    # Of the predictions about a box the one that is surest of its class speaks: two objects may share a place.
    about = pairwise_iou(truth.boxes, view.boxes.float()) >= SAME_BOX  # [B, N, P]
    index = truth.classes.clamp_min(0)[..., None].expand(-1, -1, scores.shape[1])
    own = scores.transpose(1, 2).gather(1, index) * about
    speaker = own.argmax(dim=-1)[..., None]  # [B, N, 1]
    opinion = scores.gather(1, speaker.expand(-1, -1, len(columns))) * about.gather(2, speaker)
    opinion = opinion * (opinion >= FAINTEST)
    mixed = (1 - weight) * labels + weight * opinion
    known = heard[truth.classes.clamp_min(0)][..., None]
    return torch.where(known, mixed, labels)
