"""From a map of scores to things: connected parts, each with a box, a mask and a score.

C classes, H x W the picture's size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekit.models.tcl.segmenter import BACKGROUND


@dataclass(frozen=True, kw_only=True)
class Thing:
    """What is of one class and, but for small gaps, connected."""

    class_id: int
    """0-based."""

    score: float
    """Mean over its pixels, 0..1; at least the background's."""

    left: int
    top: int
    mask: NDArray[np.bool_]
    """[h, w] the pixels of its box that belong to it."""

    @property
    def box_xywh(self) -> tuple[int, int, int, int]:
        """Left, top, width and height in pixels of the picture."""
        return self.left, self.top, self.mask.shape[1], self.mask.shape[0]


def best_of_prompts(scores: Tensor, classes: Mapping[str, Sequence[str]]) -> NDArray[np.float32]:
    """The scores of classes from those of their prompts: of each the best.

    Args:
        scores: [1 + prompts, H, W], the background first, then the prompts in the order of ``classes``.
        classes: name -> its prompts. What fits a prompt of the class "background" is none of the others.

    Returns:
        [1 + C, H, W]; the background first, then the classes without it.
    """
    prompts = torch.split(scores[1:], [len(texts) for texts in classes.values()])
    best = {name: part.amax(dim=0) for name, part in zip(classes, prompts, strict=True)}
    background = scores[0]
    if BACKGROUND in best:
        background = torch.maximum(background, best.pop(BACKGROUND))
    return torch.stack([background, *best.values()]).cpu().numpy()


def find_things(scores: NDArray[np.float32], *, smallest_px: float, join_px: float = 0.0) -> list[Thing]:
    """The connected parts of each class, the best first.

    A pixel belongs to the class that scores most there; pixels that touch at a corner are connected. A hole smaller
    than ``smallest_px`` is filled: what is too small to be a thing is too small to interrupt one. A map of classes does
    not tell things of a class apart: two cars that touch are one thing, and a person behind a post that is wider than
    ``join_px`` is two.

    Args:
        scores: [1 + C, H, W], the background first.
        smallest_px: pixels of the smallest thing that is kept.
        join_px: parts of a class that are no further apart are one thing; maps of small models fall into crumbs.
    """
    reach = round(join_px / 2)  # from either part
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    labels = scores.argmax(axis=0)
    things = []
    for class_id in np.unique(labels[labels > 0]) - 1:
        of_class = (labels == class_id + 1).astype(np.uint8)
        count, parts = cv2.connectedComponents(cv2.dilate(of_class, brush), connectivity=8)
        parts = np.where(of_class, parts, 0).astype(np.int32)  # what joins parts does not belong to them
        sizes = np.bincount(parts.ravel(), minlength=count)
        for part in np.flatnonzero(sizes >= smallest_px):
            if part == 0:  # all else
                continue
            left, top, width, height = cv2.boundingRect((parts == part).astype(np.uint8))
            place = np.s_[top : top + height, left : left + width]
            mask = parts[place] == part
            score = float(scores[class_id + 1][place][mask].mean(dtype=np.float64))
            mask = _filled(mask, smallest_px=smallest_px)
            things.append(Thing(class_id=int(class_id), score=score, left=left, top=top, mask=mask))
    return sorted(things, key=lambda thing: -thing.score)


def _filled(mask: NDArray[np.bool_], *, smallest_px: float) -> NDArray[np.bool_]:
    """``mask`` [h, w] without its small holes; what reaches the edge of the box is no hole."""
    around = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    _, parts, statistics, _ = cv2.connectedComponentsWithStats(around, connectivity=4)
    small = statistics[:, cv2.CC_STAT_AREA] < smallest_px
    small[[0, parts[0, 0]]] = False  # the mask itself, and what is around it
    filled: NDArray[np.bool_] = mask | small[parts[1:-1, 1:-1]]
    return filled
