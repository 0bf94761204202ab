"""What a region proposal network should answer: which anchors learn, and what (Faster R-CNN, arXiv 1506.01497, 3.1.2).

Numbers and rules are those of py-faster-rcnn's ``anchor_target_layer.py``, which PVANet was trained with. numpy only.

Boxes of the truth are left, top, right, bottom in input pixels, right and bottom exclusive as everywhere in edgekit;
anchors have inclusive corners as in ``edgekit.models.pvanet_rois``. N anchors, T boxes of the truth.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.boxes import Boxes, iou_matrix
from edgekit.models.pvanet_rois import AnchorShapes, all_anchors, encode, to_exclusive, to_inclusive

SAMPLES = 256
"""Anchors of a picture that learn."""

POSITIVE_SHARE = 0.5
"""Of them at most."""

POSITIVE_IOU, NEGATIVE_IOU = 0.7, 0.3
"""Overlap from which an anchor is an object's, and under which it is nobody's; those between learn nothing."""


@dataclass(frozen=True, kw_only=True)
class PictureTruth:
    """The boxes of one picture."""

    boxes: Boxes
    """[T, 4]."""

    classes: NDArray[np.int64]
    """[T] from 0."""

    ignored: Boxes
    """[I, 4] what may or may not be an object: what overlaps it is neither taught to be one nor not to be one."""


@dataclass(frozen=True, kw_only=True)
class ProposalTargets:
    """The anchors of one picture that learn: objects' first, then background."""

    anchors: NDArray[np.int64]
    """[S] which, in the order row, column, shape."""

    deltas: NDArray[np.float32]
    """[P, 4] what moves the first P of them, the objects', onto their boxes."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """[S] 1 for an object's anchor, 0 for background."""
        return (np.arange(len(self.anchors)) < len(self.deltas)).astype(np.int64)


@functools.lru_cache(maxsize=16)
def anchors_that_learn(shapes: AnchorShapes, *, rows: int, columns: int, height: int, width: int) -> NDArray[np.bool_]:
    """[N] True for anchors that lie inside the input altogether, and for those of shapes that do so nowhere.

    Only the first are published. In a small input that would leave large shapes without any lesson, and scores that
    nobody has taught come before those of a thousand anchors that have learnt to be background.
    """
    anchors = all_anchors(shapes, rows=rows, columns=columns)
    inside = (anchors[:, :2] >= 0).all(axis=1) & (anchors[:, 2] < width) & (anchors[:, 3] < height)
    fits = inside.reshape(-1, len(shapes)).any(axis=0)
    return inside | np.tile(~fits, rows * columns)


def proposal_targets(
    anchors: Boxes,
    truth: PictureTruth,
    *,
    learning: NDArray[np.bool_],
    active: NDArray[np.bool_] | None,
    rng: np.random.Generator,
) -> ProposalTargets:
    """Choose the anchors of one picture that learn.

    An anchor is an object's if it overlaps a box by ``POSITIVE_IOU``, or overlaps that box most of all anchors. The
    best of a box is sought under the mask too: a box whose best anchor is masked is not pushed onto a worse one.

    Args:
        anchors: [N, 4].
        truth: the picture's.
        learning: [N] from :func:`anchors_that_learn`.
        active: [N] True where the objectness mask is; ``None`` everywhere.
        rng: draws among them.
    """
    candidates = np.flatnonzero(learning)
    boxes = to_exclusive(anchors[candidates])
    overlaps = iou_matrix(truth.boxes, boxes)  # [T, candidates]
    best = overlaps.max(axis=0, initial=0.0)
    positive = best >= POSITIVE_IOU
    if overlaps.size:
        peak = overlaps.max(axis=1, keepdims=True)
        positive |= ((overlaps == peak) & (peak > 0)).any(axis=0)
    negative = ~positive & (best < NEGATIVE_IOU)
    negative &= iou_matrix(truth.ignored, boxes).max(axis=0, initial=0.0) < NEGATIVE_IOU
    if active is not None:
        positive &= active[candidates]
        negative &= active[candidates]
    chosen = _draw(np.flatnonzero(positive), round(POSITIVE_SHARE * SAMPLES), rng)
    others = _draw(np.flatnonzero(negative), SAMPLES - len(chosen), rng)
    deltas = np.zeros((0, 4), np.float32)
    if len(chosen):
        owners = truth.boxes[overlaps[:, chosen].argmax(axis=0)]
        deltas = encode(anchors[candidates[chosen]], to_inclusive(owners))
    return ProposalTargets(anchors=candidates[np.concatenate([chosen, others])], deltas=deltas)


def _draw(among: NDArray[np.int64], most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return among if len(among) <= most else rng.choice(among, most, replace=False)
