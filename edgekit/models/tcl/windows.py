"""Pictures of any size through a model that learnt from crops: windows that overlap, and their mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor


def spans(length: int, window: int, stride: int) -> Iterator[tuple[int, int]]:
    """First and last plus one of each window along a side: the last ends with the side, none is longer than it."""
    for index in range(max(length - window + stride - 1, 0) // stride + 1):
        stop = min(index * stride + window, length)
        yield max(stop - window, 0), stop


def slide(picture: Tensor, scores: Callable[[Tensor], Tensor], *, window: int, stride: int) -> Tensor:
    """The mean of ``scores`` over the windows that hold a pixel.

    Args:
        picture: [B, C, H, W].
        scores: [B, C, h, w] of any h, w up to ``window`` -> [B, N, h, w].
        window: its side in pixels.
        stride: from one to the next, at most ``window``.

    Returns:
        [B, N, H, W].
    """
    rows, columns = picture.shape[-2:]
    total: Tensor | None = None
    count = picture.new_zeros(1, 1, rows, columns)
    for top, bottom in spans(rows, window, stride):
        for left, right in spans(columns, window, stride):
            part = scores(picture[..., top:bottom, left:right])
            if total is None:
                total = part.new_zeros(*part.shape[:2], rows, columns)
            total[..., top:bottom, left:right] += part
            count[..., top:bottom, left:right] += 1
    assert total is not None
    return total / count


def scaled_size(height: int, width: int, *, short: int, long: int) -> tuple[int, int]:
    """(height, width) whose shorter side is ``short``, or whose longer one is ``long`` where that is less."""
    scale = min(long / max(height, width), short / min(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def padding(height: int, width: int, multiple: int) -> tuple[int, int, int, int]:
    """Pixels to add at the left, right, top and bottom, the picture in the middle, up to multiples of ``multiple``."""
    across, down = -width % multiple, -height % multiple
    return across // 2, across - across // 2, down // 2, down - down // 2
