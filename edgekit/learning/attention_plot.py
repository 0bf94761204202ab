"""A sheet of what a Sparse DETR looks at: objects, the tokens that it refines, and where its decoder attends.

The last two are what the scoring network says and what it learns from (arXiv 2111.14330, figure 4).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekit.data.datasets import DetectionDataset
from edgekit.data.letterbox import Letterboxed, letterbox, normalise
from edgekit.decoding.detr import postprocess
from edgekit.detections import Detections
from edgekit.learning.dam import attention_map, most_valued
from edgekit.learning.plots import new_figure, outline, save_figure
from edgekit.models.masked_detector import MaskedDetector
from edgekit.models.masked_detr import detect_under_mask

PICTURES = 4
"""Rows of the sheet."""

TITLES = ("objects", "scores of tokens", "tokens that are refined", "attention of the decoder")


def draw_attention(model: MaskedDetector, dataset: DetectionDataset, path: Path) -> None:
    """Draw some pictures of ``dataset`` as ``model``, a sparse DETR, sees them without a mask.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        StorageError: ``path`` cannot be written.
        ValueError: the encoder is dense, so no token is preferred.
    """
    spec = model.spec
    if spec.detr is None or spec.detr.token_share is None:
        raise ValueError(f"{spec.model} refines all tokens, or has none")
    samples = dataset.samples[:: max(1, len(dataset) // PICTURES)][:PICTURES]
    figure = new_figure(width=3 * len(TITLES), height=3 * len(samples))
    training = model.training
    model.eval()
    for row, sample in zip(figure.subplots(len(samples), len(TITLES), squeeze=False), samples, strict=True):
        boxed = letterbox(sample.read(), height=spec.height, width=spec.width)
        found, maps = _look(model, boxed)
        for axes, title in zip(row, TITLES, strict=True):
            axes.imshow(boxed.image)
            axes.set_axis_off()
            axes.set_title(title, fontsize=8)
        outline(row[0], boxed, found, spec.classes)
        for axes, heat in zip(row[1:], maps, strict=True):
            axes.imshow(heat, alpha=0.6, cmap="inferno", vmin=0, vmax=1, extent=(0, spec.width, spec.height, 0))
    model.train(training)
    save_figure(figure, path)


@torch.inference_mode()
def _look(model: MaskedDetector, boxed: Letterboxed) -> tuple[Detections, list[NDArray[np.float32]]]:
    """What is found, and maps of scores, refined tokens and attention, 0..1, at the finest level's size."""
    spec = model.spec
    image = torch.from_numpy(np.ascontiguousarray(normalise(boxed.image, spec).transpose(2, 0, 1)[None]))
    device = next(model.parameters()).device
    output = detect_under_mask(model.detr, image.to(device), None, spec, all_heads=True)
    assert output.scores is not None
    assert output.attention is not None
    assert output.kept is not None
    last = output.decoder[-1]
    raw = {"class_logits": last.logits.cpu().numpy(), "boxes": last.boxes.cpu().numpy()}
    received = attention_map(output.attention, output.shapes)
    maps = [output.scores.sigmoid(), most_valued(output.scores, output.kept, output.padding).float()]
    maps.append(received / received.amax(1, keepdim=True).clamp_min(torch.finfo(received.dtype).tiny))
    found = postprocess(spec, raw, boxed, spec.score_threshold)
    return found, [_highest(values[0].cpu(), output.shapes) for values in maps]


def _highest(values: Tensor, shapes: tuple[tuple[int, int], ...]) -> NDArray[np.float32]:
    """[S] of all levels -> [rows, columns] of the finest: at each place the highest of any level."""
    levels = torch.split(values, [rows * columns for rows, columns in shapes])
    grown = [
        torch.nn.functional.interpolate(level.reshape(1, 1, *shape), size=shapes[0])
        for level, shape in zip(levels, shapes, strict=True)
    ]
    highest: NDArray[np.float32] = torch.cat(grown).amax(0)[0].numpy()
    return highest
