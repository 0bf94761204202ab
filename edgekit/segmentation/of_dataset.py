"""A segmenter that looks for a data set's classes: what ``edgekit val tcl`` and the export gate measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from edgekit.segmentation.pipeline import SegmentationPipeline
from edgekit.segmentation.prompts import BACKGROUND, Prompts


def looking_for(pipeline: SegmentationPipeline, classes: Sequence[str], prompts: Prompts) -> SegmentationPipeline:
    """``pipeline`` with the prompts of ``classes``, in their order; without a background where these have none.

    Raises:
        UsageError: ``prompts`` lack one of ``classes``, or are for another model.
    """
    asked = pipeline.with_prompts(prompts.chosen([name for name in classes if name != BACKGROUND]))
    return asked if classes[0] == BACKGROUND else asked.with_options(background=0.0)


def segment_with(
    pipeline: SegmentationPipeline, classes: Sequence[str]
) -> Callable[[NDArray[np.uint8]], NDArray[np.int64]]:
    """RGB [h, w, 3] -> numbers of ``classes`` [h, w], by a pipeline that is :func:`looking_for` them."""
    shift = 0 if classes[0] == BACKGROUND else 1  # the label 0 is the background
    return lambda image: pipeline.process(image).labels.astype(np.int64) - shift
