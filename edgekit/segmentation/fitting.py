"""A picture in a segmenter's input, and its masks back in the picture's size.

A picture becomes as large as fits, and wider or narrower than it is where that fills the input, within what the model
has learnt to take (``spec.stretch``). It lies in the middle; bars that are left are 0 after normalisation, as PyTorch
pads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.data.resize import resize_into
from edgekit.segmentation.enlarging import interpolation
from edgekit.segmentation.spec import SegmenterSpec

LONGEST_SIDE = 65536


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """A picture in the size that the model sees, and where it lies in the input."""

    image: NDArray[np.uint8]
    """[h, w, 3], at most the input's size."""

    top: int
    """Height of the upper bar in input pixels."""

    left: int
    """Width of the left bar in input pixels."""

    source_height: int
    """Of the picture before it was scaled."""

    source_width: int
    """Likewise."""


def fit(image: NDArray[np.uint8], spec: SegmenterSpec) -> Fitted:
    """Scale ``image`` RGB [h, w, 3] for the input of ``spec``.

    Raises:
        EngineError: edgekit's kernels cannot be loaded.
        ValueError: ``image`` is not [h, w, 3] uint8 with h, w in 1..65536.
    """
    if image.ndim != 3 or image.shape[2:] != (3,) or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"a segmenter expects a uint8 image [h, w, 3], got {image.dtype} {list(image.shape)}")
    source_height, source_width = image.shape[:2]
    down, across = spec.height / source_height, spec.width / source_width
    most = spec.stretch * min(down, across)
    height = max(1, min(spec.height, round(source_height * min(down, most))))
    width = max(1, min(spec.width, round(source_width * min(across, most))))
    scaled = np.empty((height, width, 3), np.uint8)
    resize_into(image, scaled)
    return Fitted(
        image=scaled,
        top=(spec.height - height) // 2,
        left=(spec.width - width) // 2,
        source_height=source_height,
        source_width=source_width,
    )


def input_tensor(fitted: Fitted, spec: SegmenterSpec) -> NDArray[np.float32]:
    """[1, 3, H, W] normalised; a view of NHWC memory, which engines of that layout need not copy."""
    height, width = fitted.image.shape[:2]
    canvas = np.zeros((spec.height, spec.width, 3), np.float32)
    place = canvas[fitted.top : fitted.top + height, fitted.left : fitted.left + width]
    np.subtract(fitted.image, np.array(spec.mean, np.float32), out=place)
    place /= np.array(spec.std, np.float32)
    return canvas.transpose(2, 0, 1)[None]


def way_back(
    fitted: Fitted, spec: SegmenterSpec, *, height: int, width: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """([height, rows], [columns, width]): a map between them becomes the whole picture in that size."""
    inner_height, inner_width = fitted.image.shape[:2]
    down = interpolation(spec.height, spec.rows)[fitted.top : fitted.top + inner_height]
    across = interpolation(spec.width, spec.columns)[fitted.left : fitted.left + inner_width]
    down, across = interpolation(height, inner_height) @ down, interpolation(width, inner_width) @ across
    return down.astype(np.float32), np.ascontiguousarray(across.T, np.float32)
