"""Losses of Deformable DETR and Sparse DETR (arXiv 2010.04159, 2111.14330), each already weighted.

Every head is matched to the objects by itself and has three: focal loss of all its logits, L1 and generalised IoU of
the matched boxes. The last decoder layer's have no suffix, those before it ``_0`` onwards; ``_enc`` is the two-stage
head over all tokens, which predicts real classes as the others do, and ``_enc_0`` onwards are the auxiliary heads of
the encoder. The scoring network of a sparse encoder has one more, of :mod:`edgekit.learning.dam`. With six layers of
each kind that makes 37.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekit.learning.assignment import IGNORE_IOU, pairwise_iou
from edgekit.learning.dam import attention_map, mask_prediction_loss
from edgekit.learning.detr_matching import LEAST_AREA, Pairs, Target, corners, focal, match
from edgekit.learning.distributed import sum_over_processes
from edgekit.learning.losses import giou
from edgekit.models.detr_output import DetrOutput, HeadOutput

HEAD_LOSSES = ("loss_ce", "loss_bbox", "loss_giou")
"""Class, L1 and generalised IoU, by their published names."""

MASK_PREDICTION = "loss_mask_prediction"


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """What each kind of loss weighs; the defaults are published."""

    classification: float = 2.0
    box: float = 5.0
    giou: float = 2.0
    mask_prediction: float = 1.0


PUBLISHED_WEIGHTS = LossWeights()


def detr_losses(
    output: DetrOutput, targets: Sequence[Target], *, weights: LossWeights = PUBLISHED_WEIGHTS, answers: int = 1
) -> dict[str, Tensor]:
    """Scalars by name; their sum is what is minimised.

    A head's losses are sums over the batch, divided by the number of objects in it, 1 at least. That number is summed
    over the processes, as their gradients are: the published program averages both, which comes to the same.

    Args:
        output: of B pictures. Heads that it lacks have no losses.
        targets: B, on the device of ``output``.
        weights: of the losses.
        answers: so many tokens answer for each object, in the heads that read tokens. The published one is as many as
            in the decoder, and leaves their heads with few examples to learn from.

    Raises:
        MissingDependencyError: scipy is not installed.
        CheckpointError: a prediction is not finite.
        DataError: a box of an object is not finite.
        ValueError: there are scores of tokens, but not what they are learnt from.
    """
    objects = torch.tensor(float(sum(len(target.labels) for target in targets)), device=output.padding.device)
    objects = sum_over_processes(objects).clamp_min(1.0)
    losses: dict[str, Tensor] = {}
    repeated = [_repeated(target, answers) for target in targets]
    for suffix, head in _heads(output).items():
        if suffix.startswith("_enc"):
            parts = head_losses(head, repeated, objects=objects * answers, weights=weights)
        else:
            parts = head_losses(head, targets, objects=objects, weights=weights)
        losses |= {name + suffix: loss for name, loss in parts.items()}
    if output.scores is not None:
        if output.attention is None or output.kept is None:
            raise ValueError("scores of tokens are learnt from the decoder's attention and the number of kept tokens")
        received = attention_map(output.attention, output.shapes)
        loss = mask_prediction_loss(output.scores, received, output.kept, output.never_kept)
        losses[MASK_PREDICTION] = weights.mask_prediction * loss
    return losses


def head_losses(
    head: HeadOutput, targets: Sequence[Target], *, objects: Tensor, weights: LossWeights = PUBLISHED_WEIGHTS
) -> dict[str, Tensor]:
    """:data:`HEAD_LOSSES` of one head, divided by ``objects``; those of boxes are 0 where nothing is matched."""
    pairs = match(head, targets)
    logits = head.logits.float()
    wanted = torch.zeros_like(logits)
    wanted[pairs.pictures, pairs.predictions, pairs.labels] = 1
    boxes = head.boxes[pairs.pictures, pairs.predictions].float()
    overlap = giou(corners(boxes), corners(pairs.boxes), least_area=LEAST_AREA)
    losses = (
        weights.classification * (focal(logits, wanted) * _counted(head, targets, pairs)[..., None]).sum(),
        weights.box * F.l1_loss(boxes, pairs.boxes, reduction="sum"),
        weights.giou * (1 - overlap).sum(),
    )
    return {name: loss / objects for name, loss in zip(HEAD_LOSSES, losses, strict=True)}


def _repeated(target: Target, times: int) -> Target:
    """Every object ``times``: predictions are matched to one each, so as many answer for it."""
    return replace(target, labels=target.labels.repeat(times), boxes=target.boxes.repeat(times, 1))


@torch.no_grad()
def _counted(head: HeadOutput, targets: Sequence[Target], pairs: Pairs) -> Tensor:
    """[B, N] bool: not over an ignored box of its picture, or matched all the same."""
    counted = torch.ones_like(head.boxes[..., 0], dtype=torch.bool)
    for number, target in enumerate(targets):
        if target.ignored is not None and len(target.ignored):
            overlap = pairwise_iou(corners(target.ignored.float()), corners(head.boxes[number].float()))
            counted[number] = ~(overlap > IGNORE_IOU).any(dim=0)
    counted[pairs.pictures, pairs.predictions] = True
    return counted


def loss_names(*, decoder_layers: int, encoder_heads: int, two_stage: bool, sparse: bool) -> tuple[str, ...]:
    """Names of the losses in the order of the log: 37 for 6 layers of the decoder and 5 heads of the encoder."""
    suffixes = _suffixes(decoder_layers, two_stage=two_stage, encoder_heads=encoder_heads)
    names = tuple(part + suffix for suffix in suffixes for part in HEAD_LOSSES)
    return (*names, MASK_PREDICTION) if sparse else names


def _suffixes(decoder_layers: int, *, two_stage: bool, encoder_heads: int) -> list[str]:
    before = [f"_{layer}" for layer in range(decoder_layers - 1)]
    return ["", *before, *(["_enc"] if two_stage else []), *(f"_enc_{layer}" for layer in range(encoder_heads))]


def _heads(output: DetrOutput) -> dict[str, HeadOutput]:
    """Every head by the suffix of its losses."""
    proposals = [] if output.proposals is None else [output.proposals]
    suffixes = _suffixes(len(output.decoder), two_stage=bool(proposals), encoder_heads=len(output.encoder))
    heads = [output.decoder[-1], *output.decoder[:-1], *proposals, *output.encoder]
    return dict(zip(suffixes, heads, strict=True))
