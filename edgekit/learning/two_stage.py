"""Losses of a PVANet: its region proposal network and its RoI head, trained together (Faster R-CNN, 1506.01497, 3.2).

"Approximate joint training": proposals are taken as given, no gradient passes through their coordinates. Classes are
softmax cross-entropy, boxes smooth L1 of sigma 3 in the first network and 1 in the second, all four of weight 1, as in
PVANet's recipe (``example_train`` of https://github.com/sanghoon/pva-faster-rcnn). Under an objectness mask anchors of
inactive cells neither learn nor propose, as at run time they do not exist.

What is drawn for a picture depends on the run's seed and the picture's ``chance``, which depends on (seed, epoch,
index): a resumed run draws what an unbroken one would have drawn, and so do many processes.

B batch, A anchors a cell, R RoIs of all pictures, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.learning.config import TrainConfig
from edgekit.learning.distributed import sum_over_processes
from edgekit.learning.losses import Truth
from edgekit.learning.proposal_targets import PictureTruth, ProposalTargets, anchors_that_learn, proposal_targets
from edgekit.learning.roi_pooling import pool_batch
from edgekit.learning.roi_targets import DEVIATIONS, RoITargets, roi_targets
from edgekit.masks.pyramid import Mask
from edgekit.models.pvanet import Maps, PVANet
from edgekit.models.pvanet_head import RoIHead
from edgekit.models.pvanet_rois import all_anchors, cell_anchors
from edgekit.two_stage import propose_rows

RPN_SIGMA, HEAD_SIGMA = 3.0, 1.0
"""Where smooth L1 turns from a square into a line: at 1 / sigma^2."""

USUAL_LONG_SIDE = 500
"""Of VOC's pictures, in pixels. The smallest proposal is measured in a picture's own pixels, which augmentation has
changed; so it is measured as if the whole input were a picture of this size."""


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """One picture of a batch, on the CPU."""

    truth: PictureTruth
    mask: Mask | None
    rng: np.random.Generator


def two_stage_losses(
    net: PVANet, images: Tensor, mask: Tensor | None, *, truth: Truth, chance: Tensor, config: TrainConfig
) -> dict[str, Tensor]:
    """The four losses of a batch, scalars: ``rpn_class``, ``rpn_box``, ``class``, ``box``.

    Args:
        net: in training mode.
        images: [B, 3, H, W] as ``net`` takes them.
        mask: [B, 1, H/16, W/16] of zeros and ones; ``None`` is all ones.
        truth: the batch's boxes.
        chance: [B] each picture's, in [0, 1).
        config: the run's.
    """
    height, width = images.shape[-2:]
    maps = net(images, mask)
    pictures = _pictures(truth, mask, chance, seed=config.seed)
    for_rpn = _rpn_targets(net, maps, pictures, height=height, width=width)
    for_head = _roi_targets(net, maps, pictures, config, height=height, width=width)
    return {
        **_rpn_losses(maps, for_rpn, anchors=len(net.variant.anchors)),
        **_head_losses(net.head, maps.features, for_head),
    }


def _pictures(truth: Truth, mask: Tensor | None, chance: Tensor, *, seed: int) -> list[_Picture]:
    boxes, classes, kind = (value.cpu().numpy() for value in (truth.boxes, truth.classes, truth.kind))
    masks = None if mask is None else mask[:, 0].cpu().numpy() > 0
    pictures = []
    for number, drawn in enumerate(chance.tolist()):
        # What is thinner than a pixel has no logarithm worth learning.
        seen = ((boxes[number, :, 2:] - boxes[number, :, :2]) >= 1).all(axis=1)
        objects = (kind[number] == 1) & seen
        pictures.append(
            _Picture(
                truth=PictureTruth(
                    boxes=boxes[number, objects],
                    classes=classes[number, objects],
                    ignored=boxes[number, (kind[number] == -1) & seen],
                ),
                mask=None if masks is None else masks[number],
                rng=np.random.default_rng((seed, round(drawn * 2**24))),
            )
        )
    return pictures


def _rpn_targets(
    net: PVANet, maps: Maps, pictures: Sequence[_Picture], *, height: int, width: int
) -> list[ProposalTargets]:
    shapes, (rows, columns) = net.variant.anchors, maps.scores.shape[-2:]
    anchors = all_anchors(shapes, rows=rows, columns=columns)
    learning = anchors_that_learn(shapes, rows=rows, columns=columns, height=height, width=width)
    return [
        proposal_targets(
            anchors,
            picture.truth,
            learning=learning,
            active=None if picture.mask is None else np.repeat(picture.mask.reshape(-1), len(shapes)),
            rng=picture.rng,
        )
        for picture in pictures
    ]


def _rpn_losses(maps: Maps, targets: Sequence[ProposalTargets], *, anchors: int) -> dict[str, Tensor]:
    batch, _, rows, columns = maps.scores.shape
    pairs = maps.scores.view(batch, 2, anchors, rows, columns).permute(0, 3, 4, 2, 1).reshape(-1, 2)
    deltas = maps.deltas.view(batch, anchors, 4, rows, columns).permute(0, 3, 4, 1, 2).reshape(-1, 4)
    cells = rows * columns * anchors
    chosen = [target.anchors + number * cells for number, target in enumerate(targets)]
    objects = [places[: len(target.deltas)] for places, target in zip(chosen, targets, strict=True)]
    logits = pairs[_joined(chosen, pairs.device)]
    count = _over_all(len(logits), logits.device)
    return {
        "rpn_class": _cross_entropy(logits, _joined([target.labels for target in targets], logits.device), count),
        "rpn_box": _smooth_l1(
            deltas[_joined(objects, deltas.device)],
            _joined([target.deltas for target in targets], deltas.device),
            count,
            sigma=RPN_SIGMA,
        ),
    }


def _roi_targets(
    net: PVANet, maps: Maps, pictures: Sequence[_Picture], config: TrainConfig, *, height: int, width: int
) -> list[RoITargets]:
    # A row a cell, as in the graphs that detect.
    scores, deltas = (
        value.detach().float().permute(0, 2, 3, 1).flatten(1, 2).cpu().numpy() for value in (maps.scores, maps.deltas)
    )
    anchors, targets = cell_anchors(net.variant.anchors), []
    for number, picture in enumerate(pictures):
        proposals, _ = propose_rows(
            scores[number],
            deltas[number],
            anchors,
            height=height,
            width=width,
            before=config.proposals_before_nms,
            after=config.proposals,
            resized=(width / USUAL_LONG_SIDE, height / USUAL_LONG_SIDE),
            mask=picture.mask,
        )
        targets.append(
            roi_targets(
                proposals,
                picture.truth,
                count=config.rois,
                mask=picture.mask,
                height=height,
                width=width,
                rng=picture.rng,
            )
        )
    return targets


def _head_losses(head: RoIHead, features: Tensor, targets: Sequence[RoITargets]) -> dict[str, Tensor]:
    count = sum(len(target.rois) for target in targets)
    everywhere = _over_all(count, features.device)
    if count < 2:  # a batch norm has no variance of one
        nothing = features.sum() * 0
        return {"class": nothing, "box": nothing}
    pooled = pool_batch(features, [target.rois for target in targets])
    hidden = head.hidden(pooled.flatten(1))
    logits = head.cls_score(hidden)
    classes = _joined([target.classes for target in targets], features.device)
    objects = torch.nonzero(classes)[:, 0]
    deltas = F.linear(hidden[objects], *normalised_regressor(head.bbox_pred)).view(len(objects), -1, 4)
    return {
        "class": _cross_entropy(logits, classes, everywhere),
        "box": _smooth_l1(
            deltas[torch.arange(len(objects), device=deltas.device), classes[objects]],
            _joined([target.deltas for target in targets], features.device),
            everywhere,
            sigma=HEAD_SIGMA,
        ),
    }


def normalised_regressor(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight and bias that predict deltas over :data:`DEVIATIONS`, from a ``layer`` that predicts deltas.

    py-faster-rcnn trains the normalised layer and multiplies it by the deviations in each file it writes. Here the
    layer is the one that detects at every moment, so that a checkpoint, an average of weights and a network in memory
    all mean the same. Its gradient is made the one that takes a step of plain gradient descent to where the published
    step leads: a normalised weight w = v / s moves by g, so v moves by s g, where the chain rule would say g / s, a
    hundred times as far for s = .1.
    """
    weight, bias = layer.weight, layer.bias
    deviations = weight.new_tensor(DEVIATIONS).repeat(len(weight) // 4)

    def normalised(value: Tensor, deviation: Tensor) -> Tensor:
        return value * deviation + (value / deviation - value * deviation).detach()

    return normalised(weight, deviations[:, None]), normalised(bias, deviations)


def _cross_entropy(logits: Tensor, classes: Tensor, count: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), classes, reduction="sum") / count


def _smooth_l1(deltas: Tensor, targets: Tensor, count: Tensor, *, sigma: float) -> Tensor:
    """Summed over objects and coordinates, over all samples: background has no box, but counts."""
    return F.smooth_l1_loss(deltas.float(), targets, reduction="sum", beta=sigma**-2) / count


def _over_all(count: int, device: torch.device) -> Tensor:
    """``count`` summed over all processes, 1 at least."""
    return sum_over_processes(torch.tensor(float(count), device=device)).clamp_min(1.0)


def _joined(parts: Sequence[NDArray[np.generic]], device: torch.device) -> Tensor:
    return torch.from_numpy(np.concatenate(parts)).to(device)
