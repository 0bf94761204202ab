"""From the scores of prompts to a map of classes, some of which have several prompts.

C classes, H x W the picture's size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekit.models.tcl.segmenter import BACKGROUND


def best_of_prompts(
    scores: Tensor, classes: Mapping[str, Sequence[str]]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Of each class the best prompt counts, and of each pixel the best class.

    Args:
        scores: [1 + prompts, H, W], the background first, then the prompts in the order of ``classes``.
        classes: name -> its prompts, at most 255 names. What fits a prompt of the class "background" is none of the
            others.

    Returns:
        Labels [H, W], 0 for the background, then the classes without it; and the score of each pixel's label [H, W].
    """
    prompts = torch.split(scores[1:], [len(texts) for texts in classes.values()])
    best = {name: part.amax(dim=0) for name, part in zip(classes, prompts, strict=True)}
    background = scores[0]
    if BACKGROUND in best:
        background = torch.maximum(background, best.pop(BACKGROUND))
    confidence, labels = torch.stack([background, *best.values()]).max(dim=0)
    return labels.cpu().numpy().astype(np.uint8), confidence.cpu().numpy()
