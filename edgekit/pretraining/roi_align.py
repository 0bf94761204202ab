"""RoIAlign (Mask R-CNN, arXiv 1703.06870, section 3): the mean of a bilinear surface over boxes of any place and size.

A bin's value is the mean of bilinear samples on a regular grid. Bilinear weights are a product of one for the row and
one for the column, a grid is a product too, and so is the rule for what lies outside the map. Hence a bin's mean is
``rows @ features @ columns`` with one vector of weights for each axis: no loop over samples, whatever their number, and
every box of a picture in one product of matrices.

B pictures, C channels, H x W cells, R boxes, P bins a side.
"""

from __future__ import annotations

import torch
from torch import Tensor


def roi_align(
    features: Tensor,
    boxes: Tensor,
    *,
    scale: float,
    bins: int = 1,
    samples: int = 0,
    aligned: bool = False,
) -> Tensor:
    """[B, C, H, W] -> [R, C, P, P]: the mean of the features over each bin of each box; gradients reach the features.

    Args:
        features: maps.
        boxes: [R, 5]: picture (0..B-1), left, top, right, bottom in pixels of the input; in any order.
        scale: cells of the map a pixel: 1/32 for stride 32.
        bins: P.
        samples: of a bin along each axis; 0 adapts it to the box: its extent in cells over P, rounded up, as SCRL does
            (``sampling_ratio`` -1). Where the borders are on whole cells, each cell is then sampled in the middle, and
            the mean is the exact integral.
        aligned: pixel centres at +.5 on the map, as later detectors have it; otherwise boxes are at least a cell wide
            and high, as published.

    Samples further than a cell outside the map are zero, nearer ones take the border's value. Under mixed precision the
    result is float32 all the same.
    """
    channels = features.shape[1]
    # Places and their weights need more digits than mixed precision has.
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    if len(boxes) == 0:
        return features.new_zeros(0, channels, bins, bins) + features.sum() * 0
    with torch.autocast(features.device.type, enabled=False):
        return _aligned(features, boxes, scale=scale, bins=bins, samples=samples, aligned=aligned)


def _aligned(features: Tensor, boxes: Tensor, *, scale: float, bins: int, samples: int, aligned: bool) -> Tensor:
    batch, channels, height, width = (int(side) for side in features.shape)
    places = boxes[:, 1:].to(features.dtype) * scale - (0.5 if aligned else 0.0)
    least = 0.0 if aligned else 1.0
    rows = _axis_weights(places[:, 1], places[:, 3], cells=height, bins=bins, samples=samples, least=least)
    columns = _axis_weights(places[:, 0], places[:, 2], cells=width, bins=bins, samples=samples, least=least)
    weights = torch.einsum("rph,rqw->rpqhw", rows, columns)  # [R, P, P, H, W]
    picture = boxes[:, 0].long()
    # One product a picture: boxes sorted by picture, each in a place of its own there, the rest of the places zero.
    order = torch.argsort(picture, stable=True)
    counts = torch.bincount(picture, minlength=batch)
    most = int(counts.max())
    place = torch.arange(len(boxes), device=boxes.device) - (counts.cumsum(0) - counts)[picture[order]]
    table = weights.new_zeros(batch, most, bins * bins, height * width)
    table[picture[order], place] = weights[order].flatten(3).flatten(1, 2)
    means = table.flatten(1, 2) @ features.flatten(2).transpose(1, 2)  # [B, most * P * P, C]
    sorted_means = means.view(batch, most, bins * bins, channels)[picture[order], place]  # [R, P * P, C]
    back = torch.argsort(order)
    return sorted_means[back].transpose(1, 2).reshape(-1, channels, bins, bins)


def _axis_weights(low: Tensor, high: Tensor, *, cells: int, bins: int, samples: int, least: float) -> Tensor:
    """[R, P, cells]: what each cell of an axis contributes to the mean over each bin of ``low``..``high`` [R]."""
    extent = high - low
    extent = extent.clamp_min(least) if least else extent
    bin_extent = extent / bins
    counts = torch.full_like(low, samples) if samples else bin_extent.ceil().clamp_min(1)  # [R]
    most = int(counts.max())
    index = torch.arange(most, device=low.device, dtype=low.dtype)
    step = (index + 0.5) / counts[:, None]  # [R, most], 0..1 within a bin
    start = low[:, None] + torch.arange(bins, device=low.device, dtype=low.dtype) * bin_extent[:, None]  # [R, P]
    at = start[:, :, None] + step[:, None, :] * bin_extent[:, None, None]  # [R, P, most]
    counted = (index < counts[:, None])[:, None, :] & (at >= -1) & (at <= cells)
    at = at.clamp(0, cells - 1)
    cell = torch.arange(cells, device=low.device, dtype=low.dtype)
    tent = (1 - (at[..., None] - cell).abs()).clamp_min(0)  # [R, P, most, cells]
    return (tent * counted[..., None]).sum(dim=2) / counts[:, None, None]
