"""Losses of a DETR in a step (Deformable DETR, arXiv 2010.04159; Sparse DETR, arXiv 2111.14330), summed up for the log.

Under an objectness mask tokens of inactive cells neither learn nor propose. An object of which the mask leaves too
little is not asked for, but is no false alarm either.

B batch, G mask grid.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from edgekit.learning.dam import attention_map, correlation
from edgekit.learning.detr_losses import MASK_PREDICTION, detr_losses
from edgekit.learning.detr_matching import Target
from edgekit.learning.losses import Truth
from edgekit.masks.statistics import active_area_share
from edgekit.models.detr_output import DetrOutput
from edgekit.models.masked_detr import detect_under_mask
from edgekit.models.sparse_detr import SparseDetr
from edgekit.spec import DetectorSpec

SEEN_SHARE = 0.25
"""Of an object's area that a mask leaves, from which on the object is asked for."""

GROUPS = {"loss_ce": "class", "loss_bbox": "box", "loss_giou": "giou"}
"""Under which name of the log the decoder's losses are added up, whichever layer they are of."""


def detr_step_losses(
    net: SparseDetr, images: Tensor, mask: Tensor | None, *, truth: Truth, spec: DetectorSpec, answers: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The losses of a batch, scalars, and what is only watched.

    Args:
        net: in training mode.
        images: [B, 3, H, W], normalised as ``spec`` says.
        mask: [B, 1, G, G] of zeros and ones; ``None`` is all ones.
        truth: the batch's boxes.
        spec: the model's.
        answers: so many tokens answer for each object before the decoder.

    Returns:
        ``class``, ``box`` and ``giou`` of all layers of the decoder; ``encoder``, all losses of the heads that read
        tokens; of a sparse encoder ``mask_prediction``, the scoring network's. And, watched, ``correlation``: the share
        0..1 of what the decoder looks at that goes to the tokens of the highest scores.
    """
    height, width = images.shape[-2:]
    output = detect_under_mask(net, images, mask, spec, all_heads=True)
    losses = detr_losses(output, targets(truth, mask, height=height, width=width), answers=answers)
    return grouped(losses), watched(output)


def targets(truth: Truth, mask: Tensor | None, *, height: int, width: int) -> list[Target]:
    """What each picture of a batch asks for, in shares of the input of ``height`` x ``width`` pixels."""
    result = []
    for number, (boxes, classes, kind) in enumerate(zip(truth.boxes, truth.classes, truth.kind, strict=True)):
        # What is thinner than a pixel has no box worth learning.
        there = (kind != 0) & ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(dim=1)
        boxes, classes, wanted = boxes[there], classes[there], kind[there] == 1
        if mask is not None:
            active = mask[number, 0].cpu().numpy() > 0
            shares = active_area_share(boxes.cpu().numpy(), active, height, width)
            wanted = wanted & torch.from_numpy(shares >= SEEN_SHARE).to(wanted.device)
        shares_of_input = _shares(boxes, height=height, width=width)
        result.append(Target(labels=classes[wanted], boxes=shares_of_input[wanted], ignored=shares_of_input[~wanted]))
    return result


def _shares(boxes: Tensor, *, height: int, width: int) -> Tensor:
    """[n, 4] left, top, right, bottom in pixels -> centre x, centre y, width, height in shares of the input."""
    size = boxes.new_tensor([width, height])
    return torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2 / size, (boxes[:, 2:] - boxes[:, :2]) / size], dim=1)


def grouped(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The losses of ``edgekit.learning.detr_losses`` added up under the names of the log."""
    sums: dict[str, Tensor] = {}
    for name, loss in losses.items():
        kind = next((kind for kind in GROUPS if name.startswith(kind)), None)
        if name == MASK_PREDICTION:
            group = "mask_prediction"
        else:
            group = "encoder" if kind is None or "_enc" in name else GROUPS[kind]
        sums[group] = sums[group] + loss if group in sums else loss
    return sums


def watched(output: DetrOutput) -> dict[str, Tensor]:
    """``correlation``, the mean over this process's pictures; nothing of a dense encoder."""
    if output.scores is None or output.attention is None or output.kept is None:
        return {}
    received = attention_map(output.attention, output.shapes)
    return {"correlation": correlation(output.scores, received, output.kept, output.never_kept).mean()}
