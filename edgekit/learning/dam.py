"""What the scoring network of Sparse DETR learns: the tokens at which the decoder looks (arXiv 2111.14330, 3.3).

The decoder's attention map (DAM) gives each token of the encoder the attention that its layers, heads and queries paid
to it. A token is worth updating if it is among the n with the most, n being what the picture keeps.

B batch, S tokens of all levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekit.learning.distributed import sum_over_processes
from edgekit.models.detr_output import DecoderAttention

CELL_CENTRE = 0.5
"""Where in its cell a token lies. The published program leaves it out when it makes labels, not when it attends, so its
labels lie half a cell too far right and low; 0 repeats them."""


@torch.no_grad()
def attention_map(
    attention: DecoderAttention, shapes: Sequence[tuple[int, int]], *, centre: float = CELL_CENTRE
) -> Tensor:
    """[B, S] float32: the attention that each token got, summed over layers, heads, queries and points.

    A location between four tokens gives each its bilinear share, as it took each one's when the decoder looked (a
    location 0..1 of a map W tokens wide is the place x W - .5, as ``grid_sample`` counts without aligned corners).
    Shares outside the map are dropped; so is what is not finite.

    Args:
        attention: of all layers of the decoder.
        shapes: rows and columns of each level.
        centre: where in its cell a token lies, 0..1.
    """
    return torch.cat(
        [
            _level_map(
                attention.locations[:, :, :, :, level].flatten(1, -2).float(),
                attention.weights[:, :, :, :, level].flatten(1).float(),
                rows=rows,
                columns=columns,
                centre=centre,
            )
            for level, (rows, columns) in enumerate(shapes)
        ],
        dim=1,
    )


def _level_map(locations: Tensor, weights: Tensor, *, rows: int, columns: int, centre: float) -> Tensor:
    """[B, rows * columns] from all locations [B, N, 2] in a level and their weights [B, N]."""
    places = locations * locations.new_tensor([columns, rows]) - centre
    first = places.floor()
    share = places - first  # of the right and the lower neighbours
    received = weights.new_zeros(len(weights), rows * columns)
    for right in (0, 1):
        for below in (0, 1):
            column, row = first[..., 0] + right, first[..., 1] + below
            across = share[..., 0] if right else 1 - share[..., 0]
            down = share[..., 1] if below else 1 - share[..., 1]
            # Before whole numbers are made of them: NaN and infinity have no index, but fail each comparison.
            inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows) & weights.isfinite()
            index = torch.where(inside, row * columns + column, 0).long()
            received.scatter_add_(1, index, torch.where(inside, weights * across * down, 0))
    return received


@torch.no_grad()
def most_valued(values: Tensor, kept: Tensor, padding: Tensor) -> Tensor:
    """[B, S] bool: the ``kept`` [B] tokens of each picture with the highest ``values`` [B, S], padding last."""
    values = values.masked_fill(padding, values.min() - 1)
    order = values.topk(min(int(kept.max()), values.shape[1])).indices
    among = torch.arange(order.shape[1], device=order.device) < kept.to(order.device)[:, None]
    return torch.zeros_like(padding).scatter_(1, order, among)


def mask_prediction_loss(scores: Tensor, received: Tensor, kept: Tensor, padding: Tensor) -> Tensor:
    """Scalar: binary cross-entropy of :func:`most_valued`, the mean over the tokens of all processes.

    With labels for each token that is the multi-label soft margin of the published program. The padding counts, as a
    token that is not to be kept; so does what a mask hides, if ``padding`` has it.

    Args:
        scores: [B, S] logits of the scoring network.
        received: [B, S] of :func:`attention_map`; no gradient passes into it.
        kept: [B] int64, how many tokens each picture keeps.
        padding: [B, S] bool.
    """
    wanted = most_valued(received, kept, padding)
    loss = F.binary_cross_entropy_with_logits(scores.float(), wanted.float(), reduction="sum")
    return loss / sum_over_processes(loss.new_tensor(float(scores.numel())))


@torch.no_grad()
def correlation(scores: Tensor, received: Tensor, kept: Tensor, padding: Tensor) -> Tensor:
    """[B] in 0..1: the share of all attention that goes to tokens which the scores keep, the paper's "Corr".

    For the log; arguments as for :func:`mask_prediction_loss`. 0 where nothing was looked at.
    """
    hit = (received * most_valued(scores.float(), kept, padding)).sum(1)
    return hit / received.sum(1).clamp_min(torch.finfo(received.dtype).tiny)
