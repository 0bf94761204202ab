"""Pictures of a TCL model's masks beside the true ones (matplotlib)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit.data.segmentation import IGNORED, SegmentationDataset
from edgekit.learning.plots import new_figure, save_figure
from edgekit.sinks.label_map import blend, colours

if TYPE_CHECKING:
    from edgekit.models.tcl.segmenter import Segmenter

PICTURES = 6
"""Rows of the sheet."""


def draw_segmentations(segmenter: Segmenter, dataset: SegmentationDataset, path: Path) -> None:
    """A sheet of pictures, what was found in each, and what there is."""
    chosen = dataset.pictures[:: max(1, len(dataset) // PICTURES)][:PICTURES]
    figure = new_figure(width=9, height=2.6 * len(chosen))
    palette = colours(segmenter.names)
    for row, picture in zip(figure.subplots(len(chosen), 3, squeeze=False), chosen, strict=True):
        image, labels = picture.read()
        found = segmenter.segment(image)
        true = np.where(labels == IGNORED, 0, labels).astype(np.int64)
        for axes, shown in zip(row, (image, blend(image, found, palette), blend(image, true, palette)), strict=True):
            axes.imshow(shown)
            axes.set_axis_off()
        names = [segmenter.names[number] for number in np.unique(found) if segmenter.names[number] != "background"]
        row[1].set_title(", ".join(names[:4]) or "nothing", fontsize=7)
    save_figure(figure, path)
